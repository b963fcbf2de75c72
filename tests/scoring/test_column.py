"""A column of the data as a reward: numbers, spans and numbers per token, of a role or of the row."""

import json

import pytest

from tests.recipes.command import Command
from tests.tiny import write_rows

ROWS = [
    {"prompt": "why ?", "chosen": "so good", "rejected": "bad", "chosen_quality": 2.0, "rejected_quality": None, "marks": [[0, 2, 1.5]], "level": 3},
    {"prompt": "who ?", "chosen": "the cat", "rejected": "me", "chosen_quality": 1, "rejected_quality": -0.5, "marks": [], "level": 4},
]


def scored(command: Command, source: str, *more: str) -> list[dict[str, object]]:
    data, out = write_rows(command.folder / "rows.jsonl", ROWS), command.folder / "scores.jsonl"
    out.unlink(missing_ok=True)
    done = command("score", "--reward", source, "--data", data, "--out", out, *more)
    assert done.code == 0, done.error
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_column_of_each_answer_or_of_the_row(command: Command) -> None:
    assert [line["score"]["mean"] for line in scored(command, "column:quality")] == [2.0, None, 1.0, -0.5]  # type: ignore[index]
    assert [line["score"]["mean"] for line in scored(command, "column:level")] == [3.0, 3.0, 4.0, 4.0]  # type: ignore[index]
    assert [line["segments"] for line in scored(command, "column:marks")] == [[[0, 2, 1.5]], [[0, 2, 1.5]], [], []]


def test_a_column_is_tested_like_any_reward(command: Command) -> None:
    data = write_rows(command.folder / "rows.jsonl", ROWS[1:])
    done = command("eval", "--reward", "column:quality", "--data", data, "--device", "cpu")
    assert done.code == 0, done.error
    assert done.result["lines"][0]["accuracy"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("source", "code", "words"), [("column:none", 3, "no column chosen_none or none"), ("column:prompt", 2, "expected a number")]
)
def test_what_is_no_reward(command: Command, source: str, code: int, words: str) -> None:
    data = write_rows(command.folder / "rows.jsonl", ROWS)
    done = command("score", "--reward", source, "--data", data, "--out", command.folder / "out.jsonl")
    assert done.code == code
    assert words in done.error
