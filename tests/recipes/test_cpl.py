"""`prefer objective:cpl`: with and without a reference, segments that start at a character, soft labels, and data that do not fit.

Test of objectives/cpl.py, objectives/offset_segments.py, recipes/training/answer_context.py.
"""

import json
import math
from typing import Any

import numpy as np
import pytest

from finegrain.data.records import Example, Response
from finegrain.recipes.training.answer_context import RunAnswers
from tests.recipes.command import Command
from tests.tiny import write_rows

OFFSETS = ["objective:cpl", "objective.segment:from-offset"]


def rows_of(command: Command) -> list[dict[str, Any]]:
    return [json.loads(line) for line in command.data.read_text().splitlines()]


def first_step(command: Command, run: str) -> dict[str, Any]:
    return dict(json.loads((command.folder / run / "metrics.jsonl").read_text().splitlines()[0]))


def test_with_a_reference(command: Command) -> None:
    done = command.prefer("run", "objective:cpl", "--objective.gamma", "0.9", "--objective.bc", "0.5", "--max-steps", "2")
    assert done.code == 0, done.error
    step = first_step(command, "run")
    assert step["loss/cpl"] == pytest.approx(math.log(2), abs=1e-6), "a policy that is its reference"
    assert step["loss"] == pytest.approx(step["loss/cpl"] + 0.5 * step["loss/bc"], abs=1e-6)
    assert command.record("run")["settings"]["objective"]["gamma"] == 0.9
    assert command("again", command.folder / "run", "--out", command.folder / "twice").code == 0
    assert first_step(command, "twice")["loss"] == step["loss"]


def test_without_a_reference(command: Command) -> None:
    done = command.prefer("run", "objective:cpl", "objective.score:log-probabilities", "--max-steps", "1")
    assert done.code == 0, done.error
    assert "rewards/chosen" not in first_step(command, "run")


def test_segments_that_start_at_a_character(command: Command) -> None:
    rows = rows_of(command)
    starts = lambda row: {f"{role}_start": row[role].find(" ", 3) + 1 for role in ("chosen", "rejected")}
    rows = [{**row, **starts(row)} for row in rows]
    rows[0]["rejected_start"] = len(rows[0]["rejected"]) + 5
    rows[1]["chosen_start"] = -1
    data = write_rows(command.folder / "starts.jsonl", rows)
    done = command.prefer(
        "run", *OFFSETS, "--objective.segment.length", "3", "--data", data, "--max-steps", "1", "--batch-size", "64", "--holdout", "0"
    )
    assert done.code == 0, done.error
    record = command.record("run")
    assert record["data"]["dropped"] == {"out_of_range": 1}
    assert record["offset_segments"] == {"segments": 2 * (len(rows) - 1), "without_a_token": 1}
    assert first_step(command, "run")["loss/cpl"] == pytest.approx(math.log(2), abs=1e-6), "the pair with an empty segment is not in the mean"


def test_segments_need_their_columns(command: Command) -> None:
    data = write_rows(command.folder / "half.jsonl", [{**row, "chosen_start": 2} for row in rows_of(command)])
    done = command.prefer("run", *OFFSETS, "--data", data)
    assert done.code != 0
    assert "CPL reads the column rejected_start, and the rows of --data have no number there" in done.error


def test_soft_labels_and_ties(command: Command) -> None:
    """With a bias the loss at the reference does not depend on the label, so the bc term says who is imitated."""
    rows = [{**row, "label_prob": 0.9, "tie": int(place == 0)} for place, row in enumerate(rows_of(command)[:4])]
    data = write_rows(command.folder / "soft.jsonl", rows)
    one = ["objective:cpl", "--objective.bc", "1", "--data", data, "--max-steps", "1", "--holdout", "0"]
    done = command.prefer("run", *one, "--gate.tie", "keep")
    assert done.code == 0, done.error
    assert command.prefer("without", *one).code == 0
    assert command.record("without")["data"]["dropped"] == {"tie": 1}
    assert first_step(command, "run")["loss/bc"] != first_step(command, "without")["loss/bc"]


def test_the_token_of_a_character() -> None:
    """The first token that trains and ends behind the character: a token without characters, or of another turn, holds none."""
    mask = np.array([False, True, True, True, True])
    offsets = np.array([[0, 0], [0, 3], [3, 5], [5, 9], [0, 0]], dtype=np.int32)
    response = Response(ids=np.arange(5, dtype=np.int32), mask=mask, offsets=offsets, text="a text of more")
    numbers = [0.0, 2.0, 3.0, 4.0, 8.0, 9.0, 100.0]
    examples = [
        Example(row, np.ones(1, np.int32), "", {"chosen": response}, {"chosen_start": number}, spans={}, token_rewards={})
        for row, number in enumerate(numbers)
    ]
    answers = object.__new__(RunAnswers)
    object.__setattr__(answers, "examples", examples)
    assert answers.tokens_at("chosen", "chosen_start") == [1, 1, 2, 2, 3, 5, 5]
