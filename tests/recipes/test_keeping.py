"""`--eval-every`, `--keep best` and `--patience` of every training command, from argv to the published model."""

import json
from pathlib import Path

import pytest

from tests.recipes.command import Command
from tests.tiny import write_rows

SHORT = ["--lr", "3e-3", "--epochs", "2", "--holdout", "0.25", "--eval-every", "2"]
DEFAULTS = {"sft": "eval_loss", "prefer": "eval_loss", "reward": "eval_nll"}
"""What a step is kept by where nothing is asked."""


def measured(command: Command, run: str, name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in command.lines(run) if name in line}


def test_a_run_keeps_its_best_step(command: Command, tmp_path: Path) -> None:
    """Evaluated on pairs labelled the other way round, every step is worse than the one before: the first evaluation stays the best."""
    asked = [*SHORT, "--keep", "best", "--keep-by", "eval_rewards/rejected", "--patience", "2"]
    flipped = tmp_path / "flipped.jsonl"
    rows = [json.loads(line) for line in command.data.read_text().splitlines()]
    write_rows(flipped, ({**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows))
    done = command.prefer("run", "--eval", flipped, *asked, "--save-every", "2")
    assert done.code == 0, done.error
    record = command.record("run")
    curve = measured(command, "run", "eval_rewards/rejected")
    assert record["steps"] == 6
    assert min(curve, key=lambda step: curve[step]) == 2
    assert record["kept"]["step"] == 2
    assert "2 evaluations in a row without a better eval_rewards/rejected" in record["stopped"]
    assert record["stopped"] in done.error
    assert record["evaluation"]["eval_rewards/rejected"]["mean"] == pytest.approx(curve[2], abs=1e-5), "what is published is what was best"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "eval_margin" in page
    assert "The model of step 2 of 6 was kept" in page
    assert not list((tmp_path / "run").glob("best*"))
    again = command.prefer("run", "--eval", flipped, *asked, "--save-every", "2", "--resume")
    assert again.code == 0, again.error
    assert command.record("run")["kept"] == record["kept"]
    assert command.record("run")["evaluation"] == record["evaluation"]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["sft"], "eval_loss"),
        (["reward", "--frozen", "head:sequence"], "eval_nll"),
        pytest.param(["reward", "head:gaussian"], "eval_accuracy", marks=pytest.mark.slow),
        pytest.param(["prefer", "--lora.rank", "2"], "eval_loss", marks=pytest.mark.slow),
        pytest.param(["prefer", "credit:asr"], "eval_margin", marks=pytest.mark.slow),
        pytest.param(["prefer", "objective:ava-p"], "eval_reward_accuracy", marks=pytest.mark.slow),
        pytest.param(["prefer", "objective:kto"], "eval_auroc", marks=pytest.mark.slow),
        pytest.param(["prefer", "objective:token-distillation", "credit:token-reward"], "eval_margin", marks=pytest.mark.slow),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_every_command(command: Command, arguments: list[str], name: str) -> None:
    kind, *method = arguments
    by = [] if name == DEFAULTS.get(kind) else ["--keep-by", name]
    done = command.prefer("run", *method, *SHORT, "--keep", "best", *by, command=kind)
    assert done.code == 0, done.error
    record, curve = command.record("run"), measured(command, "run", name)
    assert list(curve) == list(range(2, record["steps"] + 1, 2))  # kto has two rows a pair
    assert len(curve) >= 5
    assert record["kept"]["best"]["value"] == pytest.approx(curve[record["kept"]["step"]])
    found = record["evaluation"][name]
    assert found["mean"] == pytest.approx(curve[record["kept"]["step"]], abs=1e-5)
    best = max if record["kept"]["better"] == "higher" else min
    assert record["kept"]["step"] == best(curve, key=lambda step: curve[step])


def test_evaluating_alone_keeps_the_last_step(command: Command) -> None:
    assert command.prefer("run", "--max-steps", "1", "--eval-every", "1").code == 0
    assert command.record("run")["kept"] == {"step": 1, "of": 1, "keep": "last"}


def test_data_without_held_out_rows(command: Command) -> None:
    done = command.prefer("run", "--eval-every", "2", "--limit", "3", "--holdout", "0.01")
    assert done.code == 3, done.error
    assert "--eval-every" in done.error
    assert not (command.folder / "run" / "metrics.jsonl").exists()
