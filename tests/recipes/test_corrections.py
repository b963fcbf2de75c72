"""Training on corrections from the command: what is logged and evaluated of both answers. Test of train/metrics.py, train/evaluation.py."""

import json
from pathlib import Path

from finegrain.objectives.figa import FIGA
from finegrain.train.evaluation import results_of
from finegrain.train.read_contract import contract_of
from tests.recipes.command import Command
from tests.tiny import write_rows


def write_corrections(pairs: Path, file: Path) -> Path:
    """The pairs' worse answers as originals, whose first word was corrected."""
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    made = [(row["prompt"], row["rejected"], row["rejected"].replace("bad", "good")) for row in rows]
    return write_rows(file, ({"prompt": prompt, "original": original, "corrected": corrected} for prompt, original, corrected in made))


def test_figa_on_corrections_from_the_command(command: Command, tmp_path: Path) -> None:
    data = write_corrections(command.data, tmp_path / "corrections.jsonl")
    done = command.prefer(
        "run", "objective:figa", "--data", data, "--limit", "12", "--max-steps", "2", "--holdout", "0.3", "--samples", "1", "--examined", "4"
    )
    assert done.code == 0, done.error
    record = command.record("run")
    assert record["data"]["shape"] == "correction"
    assert record["revisions"]["identical"] == 0
    names = {"logps/corrected", "logps/original", "logps/margins_per_token", "logps/accuracies", "gate/open"}
    assert all(names <= line.keys() for line in command.lines("run"))
    assert set(results_of(contract_of(FIGA()))) <= set(record["evaluation"]), "every result that can choose a step is one that a run has"
    assert record["evaluation"]["eval_accuracy"]["rows"] > 1
