"""A run that goes on, or is repeated: what is not as it was is told, and nobody's code runs unasked. Test of run_record.py, runs.py."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finegrain.cli import main
from finegrain.run_record import RunRecord
from finegrain.runs import changed_since
from tests.recipes.command import Command

SHORT = ("--max-steps", "2", "--save-every", "1", "--examined", "0")


def test_other_weights_and_another_tokenizer_are_not_gone_on_with(command: Command, tmp_path: Path) -> None:
    model, run = tmp_path / "model", command.folder / "run"
    shutil.copytree(command.model, model)
    assert command.prefer("run", *SHORT, "--model", model).code == 0
    record = command.record("run")
    assert record["model"]["source"] == str(model)
    assert len(record["model"]["sha256"]) == len(record["model"]["tokenizer_sha256"]) == 64
    (run / "run.json").write_text(json.dumps({**record, "versions": {"torch": "0.1"}}))
    going_on = command.prefer("run", *SHORT, "--model", model, "--resume")
    assert going_on.code == 0, going_on.error
    assert "resume: other versions than the earlier run's: torch 0.1 then" in going_on.error

    template = model / "chat_template.jinja"
    template.write_text("{{ messages[0].content }}")
    other = command.prefer("run", *SHORT, "--model", model, "--resume")
    assert other.code == 7
    assert "tokenizer of" in other.error
    assert "weights and" not in other.error
    template.unlink()

    before = (run / "run.json").read_bytes()
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor + 0.01 * torch.ones_like(tensor) for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"})
    other = command.prefer("run", *SHORT, "--model", model, "--resume")
    assert other.code == 7
    assert "weights of" in other.error
    assert (run / "run.json").read_bytes() == before

    again = command("again", run / "run.json", "--out", tmp_path / "again")
    assert again.code == 0, again.error
    assert "again: the weights are other ones than the earlier run's" in again.error
    assert any("weights" in line for line in json.loads((tmp_path / "again" / "run.json").read_text())["changed"])


def test_other_products_are_told(command: Command) -> None:
    """Also after a kill, which leaves the record of the beginning."""
    assert command.prefer("run", *SHORT).code == 0
    record = command.record("run")
    assert record["engine"]["float32_products_on_cpu"]
    same = command.prefer("run", *SHORT, "--resume")
    assert "float32 products" not in same.error
    engine = {**record["engine"], "float32_products_on_cpu": "MKL"}
    (command.folder / "run" / "run.json").write_text(json.dumps({**record, "engine": engine}))
    other = command.prefer("run", *SHORT, "--resume")
    assert other.code == 0, other.error
    assert "resume: float32 products by other libraries than the earlier run's (MKL then" in other.error


def test_what_changed_in_words() -> None:
    before = {"model": {"sha256": "a" * 64, "tokenizer_sha256": "b"}, "data": {"sha256": "c"}, "versions": {"torch": "1", "peft": "2"}}
    changed = lambda one, other: changed_since(RunRecord.of(one), RunRecord.of(other))
    assert changed(before, before) == []
    assert changed({}, before) == [], "what was not recorded is not compared"
    assert changed({"model": 3, "data": [], "versions": None}, before) == []
    now = {"model": {"sha256": "d", "tokenizer_sha256": "b"}, "data": {}, "versions": {"torch": "1", "peft": "3"}}
    weights, data, versions = changed(before, now)
    assert "weights" in weights
    assert "aaaaaaaaaaaa then, d now" in weights
    assert "data" in data
    assert versions.endswith("peft 2 then, 3 now")


SETTINGS = {"model": "nowhere/at/all", "data": "d", "out": "o", "objective": {"method": "dpo"}}
OWN_CODE = {**SETTINGS, "credit": {"method": "function", "path": "mine.py:weights"}}
REMOTE = {**SETTINGS, "training": {"trust_remote_code": True}}


class Terminal(io.StringIO):
    """Somebody who types an answer."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("settings", "words"), [(OWN_CODE, "mine.py:weights"), (REMOTE, "trust_remote_code")])
def test_code_of_a_file_is_asked_for(
    settings: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Past the question, the missing model stops the run: exit 4."""
    file, out = tmp_path / "run.json", str(tmp_path / "out")
    file.write_text(json.dumps({"command": "prefer", "settings": settings}))
    again = ["again", str(file), "--out", out]
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(again) == 2, "no terminal: nobody was asked"
    told = capsys.readouterr().err
    assert words in told
    assert "--yes" in told
    assert main([*again, "--yes"]) == 4
    assert main(["prefer", "--config", str(file), "--out", out]) == 2, "a run.json is one by any command"
    for answer, code in (("y\n", 4), ("n\n", 2), ("", 2)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert main(again) == code
    assert not (tmp_path / "out").exists()


def test_remote_code_is_never_inherited_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Not from a person's own settings file either; a function named there is the person's own."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(REMOTE))
    assert main(["prefer", "--config", str(file)]) == 2
    assert "trust_remote_code" in capsys.readouterr().err
    assert main(["prefer", "--config", str(file), "--trust-remote-code"]) == 4
    assert main(["prefer", "--config", str(file), "--no-trust-remote-code"]) == 4
    file.write_text(json.dumps(OWN_CODE))
    assert main(["prefer", "--config", str(file)]) == 4
