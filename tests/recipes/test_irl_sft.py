"""`finegrain reward loss:irl-sft` and `finegrain prefer objective:irl-sft` on pairs of a demonstration and a sample.

Test of rewards/irl_sft.py, objectives/irl_sft.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForTokenClassification

from tests.recipes.command import Command
from tests.tiny import write_rows


def with_copies(command: Command, folder: Path) -> Path:
    """The pairs, two of which have the demonstration as their sample."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in command.data.read_text().splitlines()]
    rows[3]["rejected"] = rows[3]["chosen"]
    rows[5]["rejected"] = rows[5]["chosen"]
    file = folder / "pairs.jsonl"
    write_rows(file, rows)
    return file


SHORT = ("--max-length", "64", "--lr", "0.003", "--epochs", "6", "--holdout", "0.25")


CHOSEN = ("head:token", "head.readout:mean", "loss:irl-sft")
OTHER_STEPS = (("longer", "loss.step.positions:longer"), ("linear", "loss.step:linear"))


def learns(command: Command, run: str, *extra: str) -> None:
    """Loss and held-out accuracy of six epochs."""
    done = command.prefer(run, *CHOSEN, *extra, *SHORT, command="reward")
    assert done.code == 0, done.error
    lines = command.lines(run)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.2
    assert done.result["evaluation"]["eval_accuracy"]["mean"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize(("run", "extra"), OTHER_STEPS)
def test_reward_by_other_steps(command: Command, run: str, extra: str) -> None:
    learns(command, run, extra)


def test_reward(command: Command) -> None:
    learns(command, "aligned")
    AutoModelForTokenClassification.from_pretrained(command.folder / "aligned")
    lines = command.lines("aligned")
    losses = {lines[0]["loss"]}
    for run, extra in OTHER_STEPS:
        done = command.prefer(run, *CHOSEN, extra, *SHORT, "--max-steps", "3", command="reward")
        assert done.code == 0, done.error
        lines = command.lines(run)
        assert lines[-1]["loss"] < lines[0]["loss"]
        losses.add(lines[0]["loss"])
    assert len(losses) == 3, "every step has its own loss"


def test_identical_pairs_are_dropped_and_counted(command: Command, tmp_path: Path) -> None:
    """By the gate, before anything is read of them; where a user keeps them there, by the loss."""
    data = with_copies(command, tmp_path)
    given = ("--data", data, "head:token", "loss:irl-sft", "--max-length", "64", "--max-steps", "2", "--holdout", "0")
    assert command.prefer("gate", *given, command="reward").code == 0
    gate = json.loads((command.folder / "gate/gate.json").read_text())
    (found,) = [one for one in gate["findings"] if one["kind"] == "identical"]
    assert found["count"] == 2
    assert command.record("gate")["first_difference"] == {"pairs": 22, "identical_left_out": 0, "one_begins_the_other_left_out": 0}
    keep = ("--gate.identical", "keep", "--gate.identical-after-truncation", "keep")
    assert command.prefer("loss", *given, *keep, command="reward").code == 0
    assert command.record("loss")["first_difference"] == {"pairs": 24, "identical_left_out": 2, "one_begins_the_other_left_out": 0}


def test_objective(command: Command) -> None:
    """The logistic link is dpo, to the last digit."""
    short = ("--max-length", "64", "--max-steps", "3", "--lr", "0.003")
    runs = {"irl": ("objective:irl-sft",), "dpo": ("objective:dpo",), "linear": ("objective:irl-sft", "objective.link:linear-link")}
    for run, arguments in runs.items():
        assert command.prefer(run, *arguments, *short).code == 0
    assert command.lines("irl") == command.lines("dpo")
    assert command.lines("linear")[0]["loss"] == 0
    assert command.lines("linear")[-1]["loss"] < 0
