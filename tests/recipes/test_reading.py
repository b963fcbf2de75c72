"""Which rows a run reads and which parameters it trains, from the command line; interrupted and resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finegrain.train.loop import Trainer
from finegrain.train.run import Recorder
from finegrain.train.source import StepSource
from tests.recipes.command import Command
from tests.tiny import write_pairs


def numbered(folder: Path, name: str, count: int, seed: int, column: str | None = "advantage") -> Path:
    file = write_pairs(folder / name, count, seed)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for place, row in enumerate(rows):
        if column is not None:
            row[column] = max(0.0, (place % 4) - 1.0)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_rows_are_drawn_by_a_column(command: Command) -> None:
    data = numbered(command.folder, "drawn.jsonl", 24, 3)
    done = command.prefer("run", "objective:dpo", "--data", data, "--sample-by", "advantage", "--epochs", "2")
    assert done.code == 0, done.error
    found = command.record("run")["reading"]
    assert found["by"] == "advantage"
    assert found["without_a_chance"] > 0
    assert found["rows_read"] + found["without_a_chance"] <= command.record("run")["pairs"]
    assert "rows are drawn by advantage" in done.error
    assert [line["step"] for line in command.lines("run")] == list(range(1, len(command.lines("run")) + 1))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("nothing", "drawn by the column nothing, which not every row has; numbers found: advantage"),
    ],
)
def test_a_column_that_is_not_there(command: Command, column: str, words: str) -> None:
    data = numbered(command.folder, "drawn.jsonl", 24, 3)
    done = command.prefer("run", "objective:dpo", "--data", data, "--sample-by", column)
    assert done.code != 0
    assert words in done.error


def test_every_step_reads_two_streams_and_a_resumed_run_the_same(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = numbered(command.folder, "a.jsonl", 20, 3), numbered(command.folder, "b.jsonl", 6, 4)
    asked = [
        "objective:dpo",
        "--data",
        f"{first} + {second}",
        "--second-share",
        "0.25",
        "--epochs",
        "2",
        "--sample-by",
        "advantage",
        "--holdout",
        "0",
    ]
    rows: list[list[int]] = []
    honest = Trainer.batches

    def watched(self: Trainer, *arguments: Any) -> Any:
        found = honest(self, *arguments)
        rows.append([int(row) for batch in found for row in batch.columns["row"]])
        return found

    monkeypatch.setattr(Trainer, "batches", watched)
    assert command.prefer("whole", *asked).code == 0
    whole = list(rows)
    assert all(sum(row >= 20 for row in step) == 1 and len(step) <= 4 for step in whole)
    assert command.record("whole")["reading"]["second_rows"] == 6
    rows.clear()
    saved = Recorder.save

    def killed(self: Recorder, trainer: Trainer, step: int, source: StepSource | None) -> None:
        saved(self, trainer, step, source)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "save", killed)
        assert command.prefer("half", *asked, "--save-every", "3").code != 0
    assert command.prefer("half", *asked, "--save-every", "3", "--resume").code == 0
    assert rows == whole
    one, other = (load_file(command.folder / run / "model.safetensors") for run in ("whole", "half"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_second_stream_needs_a_second_source(command: Command) -> None:
    done = command.prefer("run", "objective:dpo", "--second-share", "0.5")
    assert done.code != 0
    assert "from the last source of --data, and there is one" in done.error


def test_only_parameters_of_a_pattern_train(command: Command) -> None:
    done = command.prefer("run", "objective:dpo", "--train-only", r"down_proj|norm", "--max-steps", "3", "--lr", "1e-3")
    assert done.code == 0, done.error
    before, after = (load_file(folder / "model.safetensors") for folder in (command.model, command.folder / "run"))
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    matching = {name for name in before if "down_proj" in name or "norm" in name}
    assert any("down_proj" in name for name in moved)
    assert moved <= matching
    found = command.record("run")["train_only"]
    assert found["tensors"] == len(matching)
    assert f"{len(matching)} of {found['of_tensors']} tensors match" in done.error


@pytest.mark.parametrize(("pattern", "words"), [("up_porj", "finds none of"), ("(", "is no regular expression")])
def test_a_pattern_that_finds_nothing_is_an_error(command: Command, pattern: str, words: str) -> None:
    done = command.prefer("run", "objective:dpo", "--train-only", pattern)
    assert done.code != 0
    assert words in done.error
