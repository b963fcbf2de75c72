"""What a neutral step counts as is chosen on the command line, by the same flag wherever labelled steps are read.

Test of rewards/step_labels.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.command import Command
from tests.tiny import write_rows

TOLD = {"wrong": "counted as wrong", "right": "counted as right", "ignore": "not counted"}


def chosen(rating: int) -> dict[str, Any]:
    """A step with one completion, which the labeller took."""
    text = "good words" if rating else "people said so"
    return {"completions": [{"text": text, "rating": rating}], "human_completion": None, "chosen_completion": 0}


def prm800k(folder: Path) -> Path:
    """Ten answers of a right and a neutral step, ten of a right step; an answer of a neutral step alone; a question of quality control."""
    steps = [[1, 0]] * 10 + [[1]] * 10 + [[0], [1]]
    rows = [
        {
            "question": {"problem": f"why {place} ?"},
            "label": {"steps": [chosen(rating) for rating in ratings], "finish_reason": "solution"},
            "is_quality_control_question": place == len(steps) - 1,
        }
        for place, ratings in enumerate(steps)
    ]
    file = folder / "prm.jsonl"
    write_rows(file, rows)
    return file


def flag(neutral: str | None) -> list[str]:
    return [] if neutral is None else ["--gate.neutral-step", neutral]


def kinds(report: dict[str, Any]) -> dict[str, Any]:
    return {one["kind"]: (one["count"], one["action"]) for one in report["findings"] if one["kind"] in ("neutral_step", "undecided_steps")}


@pytest.mark.parametrize("neutral", [None, "wrong", "right", "ignore"])
def test_check_data_says_what_they_count_as(command: Command, neutral: str | None) -> None:
    done = command("check-data", "--data", prm800k(command.folder), *flag(neutral))
    assert done.code == 0, done.error
    assert done.result["examples_left"] == 21
    assert kinds(done.result) == {"neutral_step": (11, TOLD[neutral or "wrong"])}
    assert f"neutral_step: 11 {TOLD[neutral or 'wrong']} (rows 0, 1, 2, 3, 4 …)" in done.error
    assert "quality_control: 1 dropped (rows 21)" in done.error


@pytest.mark.parametrize(
    ("neutral", "steps", "answers", "right"),
    [(None, 31, 21, (10 * 0.5 + 10) / 21), ("wrong", 31, 21, (10 * 0.5 + 10) / 21), ("right", 31, 21, 1.0), ("ignore", 20, 20, 1.0)],
)
def test_a_step_head_learns_what_was_chosen(command: Command, neutral: str | None, steps: int, answers: int, right: float) -> None:
    """The held-out rows are the training rows; `right`: the mean over answers of the share of their counted steps that is right."""
    data = prm800k(command.folder)
    done = command.prefer(
        "run", "head:step", "loss:step-labels", "--data", data, "--eval", data, "--max-length", "64", "--examined", "0", "--max-steps", "1",
        *flag(neutral), command="reward",
    )  # fmt: skip
    assert done.code == 0, done.error
    assert command.record("run")["labelled_steps"] == {"read": 2 * steps, "cut_or_without_a_token": 0}, "training and held-out rows"
    found = done.result["evaluation"]["eval_step_always_right"]
    assert (found["mean"], found["rows"]) == (pytest.approx(right), answers)
    assert kinds(json.loads((command.folder / "run" / "gate.json").read_text())) == {"neutral_step": (11, TOLD[neutral or "wrong"])}


@pytest.mark.parametrize(
    ("neutral", "rows", "found"),
    [
        ("wrong", 21, {"neutral_step": (11, "counted as wrong")}),
        ("right", 21, {"neutral_step": (11, "counted as right")}),
        ("ignore", 20, {"neutral_step": (10, "not counted"), "undecided_steps": (1, "dropped")}),
    ],
)
def test_labels_of_whole_answers_follow(command: Command, neutral: str, rows: int, found: dict[str, Any]) -> None:
    data = prm800k(command.folder)
    done = command.prefer("run", "objective:kto", "--data", data, "--max-steps", "1", "--holdout", "0", "--examined", "0", *flag(neutral))
    assert done.code == 0, done.error
    assert command.record("run")["data"]["kept"] == rows
    assert kinds(json.loads((command.folder / "run" / "gate.json").read_text())) == found


def test_another_word_is_refused(command: Command) -> None:
    done = command("check-data", "--data", prm800k(command.folder), "--gate.neutral-step", "good")
    assert done.code == 2
    assert "wrong" in done.error
    assert "ignore" in done.error
