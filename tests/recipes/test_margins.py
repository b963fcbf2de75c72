"""The column margin is scaled to its median before a loss reads it, and the run says so. Test of recipes/training/data.py."""

import json
from dataclasses import replace
from pathlib import Path

from finegrain.data.store import collect
from finegrain.recipes.training.margins import margins_as_trained
from tests.data.test_store import examples
from tests.recipes.command import Command, Outcome
from tests.tiny import write_rows

MARGINS = (0.5, 1.0, 1.0, 4.0)


def with_margins(command: Command, file: Path, factor: float, **more: float) -> Path:
    """The rows with margins in units of their own; some are ties without one."""
    rows = [json.loads(line) for line in command.data.read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {"margin": 0.0 if number % 5 == 4 else factor * MARGINS[number % 4], **more}
    write_rows(file, rows)
    return file


def train(command: Command, run: str, data: Path, *arguments: str) -> Outcome:
    done = command.prefer(run, "head:sequence", *arguments, "--data", data, "--max-steps", "3", "--holdout", "0", command="reward")
    assert done.code == 0, done.error
    return done


def test_margins_in_units_of_their_own_train_as_their_median_says(command: Command, tmp_path: Path) -> None:
    nats, points = with_margins(command, tmp_path / "nats.jsonl", 1.0), with_margins(command, tmp_path / "points.jsonl", 8.0)
    as_they_are = train(command, "nats", nats, "--margin-scale", "none")
    scaled = train(command, "points", points)
    assert command.lines("nats") == command.lines("points"), "eight times the margins, scaled to the same median"
    assert "by the column margin, 8 at the median and 32 at most; scaled by 0.125, to 1 and 4 nats" in scaled.error
    assert "taken as they are" in as_they_are.error
    told = command.record("points")["margin"]
    assert (told["scale"], told["asked"], told["median"], told["largest"]) == (0.125, "median", 8.0, 32.0)


def test_a_number_multiplies_and_curated_margins_stay(command: Command, tmp_path: Path) -> None:
    points = with_margins(command, tmp_path / "points.jsonl", 8.0)
    assert "scaled by 0.5, to 4 and 16 nats" in train(command, "half", points, "--margin-scale", "0.5").error
    curated = with_margins(command, tmp_path / "curated.jsonl", 8.0, strength_mean=1.0)
    assert "taken as they are" in train(command, "curated", curated).error
    assert command.record("curated")["margin"]["scale"] == 1.0
    refused = command.prefer("refused", "head:sequence", "--margin-scale", "-1", command="reward")
    assert refused.code == 2


def test_a_posterior_reads_margins_as_the_run_scaled_them(tmp_path: Path) -> None:
    rows = collect(replace(row, columns={"margin": 8.0}) for row in examples(2))
    (tmp_path / "run.json").write_text(json.dumps({"margin": {"scale": 0.125}}))
    assert margins_as_trained(tmp_path, rows)["margin"].tolist() == [1.0, 1.0]
    assert margins_as_trained(tmp_path / "none", rows)["margin"].tolist() == [8.0, 8.0]
