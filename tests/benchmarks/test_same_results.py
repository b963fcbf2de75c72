"""What `benchmarks/same_results.py` compares: the last bit of tensors and numbers, keys under their new names, and nothing that only times a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import same_results as same

RUN = {"loss": 0.1, "settings": {"seed": 0, "common": {"limit": None}}, "empty": [], "date": "today", "versions": {"torch": "2"}}


def record(**changes: Any) -> dict[str, Any]:
    return {"exit": 0, "stdout": {"out": "run"}, "files": {"run/run.json": RUN | changes}}


def test_equal_but_for_what_is_left_out() -> None:
    assert same.differences(record(), record()) == []
    assert same.differences(record(), record(date="tomorrow", versions={})) == []


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"loss": 0.1 + 2**-56}, "loss: 0.1 -> 0.10000000000000002"),
        ({"loss": -0.0}, "loss: 0.1 -> -0.0"),
        ({"loss": float("nan")}, "loss: 0.1 -> NaN"),
        ({"empty": {}}, "empty: [] -> {}"),
        ({"settings": {"seed": 0, "common": {}}}, "settings/common/limit: null -> absent"),
        ({"settings": RUN["settings"] | {"more": True}}, "settings/more: absent -> true"),
    ],
)
def test_a_difference_is_named(changed: dict[str, Any], line: str) -> None:
    assert f"files/run/run.json/{line}" in same.differences(record(), record(**changed))


def test_not_a_number_and_minus_zero_equal_themselves() -> None:
    assert same.differences([float("nan"), -0.0], [float("nan"), -0.0]) == []
    assert same.differences([0.0], [-0.0]) == ["0: 0.0 -> -0.0"]


def test_a_renamed_key_is_the_same_and_a_changed_value_under_it_is_not() -> None:
    names = {"settings/common": "settings", "loss": "mean_loss", "run.json": "record.json"}
    after = {name: value for name, value in RUN.items() if name != "loss"} | {"mean_loss": 0.1, "settings": {"seed": 0, "limit": None}}
    assert same.differences(record(), {**record(), "files": {"run/record.json": after}}, names) == []
    after["mean_loss"] = 0.2
    assert same.differences(record(), {**record(), "files": {"run/record.json": after}}, names) == ["files/run/record.json/mean_loss: 0.1 -> 0.2"]
    assert same.renamed("loss/eval_loss/loss", names) == "mean_loss/eval_loss/mean_loss"


def test_a_tensor_that_differs_in_one_bit_is_named(tmp_path: Path) -> None:
    weights = {"head": torch.ones(2, 3), "body": torch.zeros(4, dtype=torch.bfloat16)}
    found = []
    for name, value in (("before", 1.0), ("after", 1.0 + 2**-23)):
        weights["head"][1, 2] = value
        save_file(weights, tmp_path / f"{name}.safetensors", metadata={"format": "pt"})
        found.append(same.content(tmp_path / f"{name}.safetensors"))
    assert found[0]["body"] == found[1]["body"]
    assert found[0]["body"]["dtype"] == "BF16"
    assert [line.partition(":")[0] for line in same.differences(*found)] == ["head/sha256"]


def test_runs_are_compared_step_by_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side in ("before", "after"):
        (tmp_path / side / same.RECORDS).mkdir(parents=True)
        for name in (same.INPUTS, *(step.name for step in same.STEPS)):
            same.write_record(tmp_path / side / same.RECORDS / f"{name}.json", record() | {"command": [side]})
    assert same.compare_all(tmp_path / "before", tmp_path / "after") == 0
    same.write_record(tmp_path / "after" / same.RECORDS / "sft.json", record() | {"exit": 1})
    (tmp_path / "after" / same.RECORDS / "again.json").unlink()
    capsys.readouterr()
    assert same.compare_all(tmp_path / "before", tmp_path / "after") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["again: there is no record of it on both sides", "sft: exit: 0 -> 1"]


def test_planted_rows_are_fixed_and_spans_lie_on_their_words() -> None:
    files = same.data_files()
    assert json.dumps(files) == json.dumps(same.data_files())
    for row in files["spans"]:
        ((start, end, _),) = row["rejected_spans"]
        assert row["rejected"][start:end] in same.BAD
