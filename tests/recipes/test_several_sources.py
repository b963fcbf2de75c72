"""`--data "A=2 + B=1"` from argv to run.json, gate.json and the report. Test of data/mixture.py, data/sources.py."""

import json
from pathlib import Path
from typing import Any

import finegrain
from finegrain.commands.settings import Common, Training
from finegrain.data.gate.settings import Gate
from tests.recipes.command import Command
from tests.tiny import write_pairs


def test_a_run_on_two_sources(command: Command, tmp_path: Path) -> None:
    other = tmp_path / "more" / "other.jsonl"
    other.parent.mkdir()
    write_pairs(other, 30)
    other.write_text(other.read_text() + json.dumps({"prompt": "p", "chosen": "never", "rejected": "reached"}) + "\n")
    both = f"{command.data}=2 + {other}=1"
    done = command.prefer("run", "objective:dpo", "--data", both, "--max-steps", "2", "--examined", "4", "--gate.bias-rows", "0")
    assert done.code == 0, done.error
    data = command.record("run")["data"]
    assert data["source"] == command.record("run")["settings"]["data"] == both
    told = [(one["source"], one["weight"], one["rows"], one["rows_left_over"]) for one in data["sources"]]
    assert told == [(str(command.data), 2.0, 24, 0), (str(other), 1.0, 12, 19)]
    assert sum(one["kept"] for one in data["sources"]) == data["kept"]
    assert f"mixture: left over: {other}: 12 of 31 rows used" in done.error
    gate = json.loads((tmp_path / "run" / "gate.json").read_text())
    assert gate["sources"] == data["sources"]
    assert gate["sha256"] == data["sha256"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "pairs.jsonl + other.jsonl" in page
    again = command("again", tmp_path / "run" / "run.json", "--out", tmp_path / "again")
    assert again.code == 0, again.error
    assert command.lines("again") == command.lines("run")
    write_pairs(other, 29)
    changed = command.prefer("run", "objective:dpo", "--data", both, "--max-steps", "2", "--examined", "4", "--gate.bias-rows", "0", "--resume")
    assert changed.code == 7
    assert "other data" in changed.error


def test_python_takes_weights_by_path(command: Command, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "other.jsonl", 30)
    settings: dict[str, Any] = {"common": Common(max_steps=1), "training": Training(samples=0, examined=0, batch_size=4), "gate": Gate(bias_rows=0)}
    finegrain.prefer(str(command.model), {command.data: 1, other: 1.5}, tmp_path / "run", **settings)
    assert command.record("run")["settings"]["data"] == f"{command.data}=1 + {other}=1.5"
    assert [one["rows"] for one in command.record("run")["data"]["sources"]] == [20, 30]


def test_what_is_refused_before_the_model_loads(command: Command, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "more.jsonl", 4)
    for code, words, data in (
        (2, "the weight of", f"{command.data}=x + {other}=1"),
        (2, "--data names", f"{other} + {other}"),
        (7, "what --data reads", f"{command.data} + {tmp_path}"),
    ):
        done = command.prefer("run", "objective:dpo", "--data", data, "--model", tmp_path / "nothing")
        assert (done.code, words in done.error) == (code, True), done.error
    for name, arguments in (
        ("curate", ["--out", tmp_path / "c.jsonl"]),
        ("score", ["--out", tmp_path / "s.jsonl"]),
    ):
        done = command(name, "--model", command.model, "--data", f"{command.data} + {other}", *arguments)
        assert done.code == 2
        assert "names 2 sources, but only one can be read" in done.error
