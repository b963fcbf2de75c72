"""The gate by itself and at the start of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from finegrain.data.gate.settings import TOKEN_KINDS
from tests.recipes.command import Command
from tests.tiny import write_rows

GOOD: dict[str, Any] = {"prompt": "What is it, please?\n", "chosen": "It is a house.", "rejected": "Nobody ever knew that."}


def by_kind(report: dict[str, Any]) -> dict[str, Any]:
    return {finding["kind"]: finding["rows"] for finding in report["findings"]}


def test_bad_rows_are_listed_and_the_whole_report_is_written(command: Command, tmp_path: Path) -> None:
    bad = [{"prompt": "p", "chosen": "a"}, {**GOOD, "chosen": ""}, *[GOOD] * 30, {**GOOD, "prompt": "long " * 500}]
    data, out = write_rows(tmp_path / "d.jsonl", [GOOD, *bad]), tmp_path / "gate.json"
    done = command("check-data", "--data", data, "--model", command.model, "--out", out)
    assert done.code == 0, done.error
    whole = json.loads(out.read_text())
    assert whole["rows"] == 34
    assert by_kind(whole) == {"missing_column": [1], "empty": [2], "duplicate": list(range(3, 33)), "over_length": [33], "prompt_truncated": [33]}
    assert whole["not_checked"] == []
    assert {finding["kind"]: finding["count"] for finding in done.result["findings"]}["duplicate"] == 30
    assert by_kind(done.result)["duplicate"] == list(range(3, 23)), "stdout names the first ones"
    assert "duplicate: 30 kept (rows 3, 4, 5, 6, 7 …)" in done.error
    assert whole["biases"]["longer_wins"]["accuracy"] is None
    assert not list(tmp_path.glob("*.part"))


def test_without_a_model_the_kinds_of_tokens_are_named_as_not_checked(command: Command, tmp_path: Path) -> None:
    done = command("check-data", "--data", write_rows(tmp_path / "d.jsonl", [GOOD, {**GOOD, "prompt": "long " * 5000}]))
    assert done.code == 0
    assert done.result["not_checked"] == list(TOKEN_KINDS)
    assert done.result["findings"] == []
    assert done.result["out"] is None


def test_an_action_that_would_stop_a_run_is_listed(command: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", [GOOD, GOOD])
    done = command("check-data", "--data", data, "--gate.duplicate", "error")
    assert done.code == 0
    (finding,) = done.result["findings"]
    assert (finding["kind"], finding["action"]) == ("duplicate", "error")


def test_what_cannot_be_examined(command: Command, tmp_path: Path) -> None:
    data, there = write_rows(tmp_path / "d.jsonl", [GOOD]), tmp_path / "there.json"
    there.write_text("mine")
    (tmp_path / "broken.jsonl").write_text('{"prompt": ')
    for code, words, arguments in (
        (3, "no file", ["--data", tmp_path / "none.jsonl"]),
        (3, "not JSON", ["--data", tmp_path / "broken.jsonl"]),
        (3, "no known form", ["--data", write_rows(tmp_path / "foreign.jsonl", [{"a": 1}])]),
        (2, "dublicate", ["--data", data, "--gate.dublicate", "drop"]),
        (2, "burn", ["--data", data, "--gate.duplicate", "burn"]),
        (4, "tokenizer", ["--data", data, "--model", tmp_path]),
        (7, "already exists", ["--data", data, "--out", there]),
        (7, "no folder", ["--data", data, "--out", tmp_path / "nowhere" / "gate.json"]),
    ):
        done = command("check-data", *arguments)
        assert done.code == code, (arguments, done.error)
        assert words in done.error
        assert "Traceback" not in done.error
    assert there.read_text() == "mine"


def test_a_file_that_appears_meanwhile_is_not_replaced(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finegrain.recipes import check_data

    honest, out = check_data.describe_report, tmp_path / "gate.json"

    def slow(report: dict[str, Any]) -> list[str]:
        out.write_text("another's")
        return honest(report)

    monkeypatch.setattr(check_data, "describe_report", slow)
    done = command("check-data", "--data", write_rows(tmp_path / "d.jsonl", [GOOD]), "--out", out)
    assert done.code == 7
    assert out.read_text() == "another's"
    assert not list(tmp_path.glob("*.part"))


def test_the_gate_stands_before_every_run(command: Command, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in command.data.read_text().splitlines()]
    data = write_rows(tmp_path / "pairs.jsonl", [*rows, rows[3], rows[5]])
    held = write_rows(tmp_path / "held.jsonl", [GOOD, {**GOOD, "chosen": " "}])
    for name, recipe in (("one", "prefer"), ("two", "sft")):
        done = command.prefer(name, "--data", data, "--eval", held, "--max-steps", "1", "--gate.duplicate", "drop", command=recipe)
        assert done.code == 0, done.error
        found = json.loads((command.folder / name / "gate.json").read_text())
        assert by_kind(found)["duplicate"] == [len(rows), len(rows) + 1]
        assert found["not_checked"] == []
        assert by_kind(json.loads((command.folder / name / "gate-eval.json").read_text()))["empty"] == [1]
        record = command.record(name)
        assert record["data"]["dropped"] == {"duplicate": 2}
        assert record["settings"]["gate"]["duplicate"] == "drop"
    refused = command.prefer("three", "--data", data, "--gate.duplicate", "error")
    assert refused.code == 3
    assert f"row {len(rows)}: duplicate" in refused.error
    assert "--gate.duplicate" in refused.error
    assert not (command.folder / "three").exists()
