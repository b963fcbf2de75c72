"""Evaluation while training: the best step is kept, patience stops, and a resumed run decides as the uninterrupted one."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from finegrain.errors import CheckpointError, DataError
from finegrain.objectives.dpo import DPO
from finegrain.runs import RunDirectory
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.loop import Trainer
from finegrain.train.run import Recorder, train
from finegrain.train.selection import BEST, Criterion, Selection, Standing, plain_numbers
from tests.train.awkward import Gated
from tests.train.harness import How, build, weights
from tests.train.test_checkpoint import STEPS, lines_of, short_plan

LOSSES = {2: 0.9, 4: 0.5, 6: 0.7, 8: 0.5, 9: 0.1}
"""By step; 8 is as good as 4, which is not better."""


def run(folder: Path, *, patience: int, save_every: int = 1, resume: bool = False, by: Criterion | None = None) -> tuple[Trainer, Selection, Any]:
    """A run whose held-out loss is LOSSES of the steps that its optimiser has taken; also its weights after step 4, where it passed it."""
    trainer, plan = build(Gated(), How(micro_tokens=60))
    moved = next(trainer.scorer.parameters())
    measure = lambda: {"eval_loss": {"mean": LOSSES[int(trainer.optimizer.state[moved]["step"])]}, "eval_none": {"mean": None}}
    selection = Selection(2, measure, by or Criterion("eval_loss", higher=False), True, patience, folder)
    seen: dict[int, Any] = {}
    watch = lambda line: seen.update({line["step"]: weights(trainer)})
    recorder = Recorder(RunDirectory(folder), Checkpoints(folder, STEPS), lambda path: None, save_every, True, selection, [watch])
    train(trainer, short_plan(plan), recorder, resume=resume)
    return trainer, selection, seen


def test_the_best_step_is_kept_and_patience_stops(tmp_path: Path) -> None:
    trainer, selection, seen = run(tmp_path, patience=2)
    lines = lines_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 9)), "6 and 8 are not better than 4"
    assert {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line} == {2: 0.9, 4: 0.5, 6: 0.7, 8: 0.5}
    assert selection.stopped(8, STEPS) == "stopped after step 8 of 9: 2 evaluations in a row without a better eval_loss than the 0.5 of step 4"
    assert selection.kept(8) == {
        "step": 4, "of": 8, "keep": "best", "by": "eval_loss", "better": "lower", "best": {"step": 4, "value": 0.5},
    }  # fmt: skip
    tables = [name for name in seen[4] if name.startswith("table.")]
    assert tables
    assert all(not torch.equal(weights(trainer)[name], seen[4][name]) for name in tables)
    assert any(not torch.equal(weights(trainer)[name], tensor) for name, tensor in seen[4].items() if name not in tables)
    selection.restore_best(trainer, 8)
    assert all(torch.equal(weights(trainer)[name], tensor) for name, tensor in seen[4].items()), "what trains, and the tables"
    selection.discard()
    assert not (tmp_path / BEST).exists()


def test_the_last_step_is_measured_too(tmp_path: Path) -> None:
    trainer, selection, _ = run(tmp_path, patience=3)
    assert len(lines_of(tmp_path)) == STEPS
    assert selection.standing == Standing(9, 0.1, 0)
    assert selection.stopped(9, STEPS) is None
    before = weights(trainer)
    selection.restore_best(trainer, STEPS)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(trainer).items())


def test_more_can_be_better(tmp_path: Path) -> None:
    _, selection, _ = run(tmp_path, patience=2, by=Criterion("eval_loss", higher=True))
    assert selection.standing == Standing(2, 0.9, 2)
    assert len(lines_of(tmp_path)) == 6


@pytest.mark.slow
def test_resume_at_every_step_decides_alike(tmp_path: Path) -> None:
    """Weights, best step, patience and lines; what a later best step had left in the folder plays no part."""
    whole = tmp_path / "whole"
    whole.mkdir()
    trainer, selection, _ = run(whole, patience=2)
    selection.restore_best(trainer, 8)
    want = weights(trainer)
    for offset in range(1, 8):
        part = tmp_path / f"resumed-{offset}"
        part.mkdir()
        shutil.copytree(whole / f"checkpoint-{offset}", part / f"checkpoint-{offset}")
        (part / "metrics.jsonl").write_text((whole / "metrics.jsonl").read_text())
        (part / BEST).write_bytes(b"of a step that the resumed run has not reached")
        again, resumed, _ = run(part, patience=2, resume=True)
        assert resumed.standing == selection.standing, offset
        assert resumed.stopped(8, STEPS) == selection.stopped(8, STEPS)
        assert lines_of(part) == lines_of(whole)
        resumed.restore_best(again, 8)
        assert all(torch.equal(weights(again)[name], want[name]) for name in want if not name.startswith("table.")), offset


def test_resume_without_a_checkpoint_forgets_what_was_best(tmp_path: Path) -> None:
    _, first, _ = run(tmp_path, patience=2, save_every=0)
    (tmp_path / "best.part").write_bytes(b"half")
    _, again, _ = run(tmp_path, patience=2, save_every=0, resume=True)
    assert again.standing == first.standing
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, "metrics.jsonl"]


def test_a_checkpoint_whose_best_weights_are_gone_is_named(tmp_path: Path) -> None:
    run(tmp_path, patience=2, save_every=5)
    (tmp_path / "checkpoint-5" / BEST).unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*checkpoint-5"):
        run(tmp_path, patience=2, resume=True)


def test_measuring_changes_nothing_of_the_training(tmp_path: Path) -> None:
    run(tmp_path, patience=0)
    trainer, plan = build(Gated(), How(micro_tokens=60))
    (tmp_path / "plain").mkdir()
    train(trainer, short_plan(plan), Recorder(RunDirectory(tmp_path / "plain"), Checkpoints(tmp_path / "plain"), lambda path: None), resume=False)
    with_evaluations = [{name: value for name, value in line.items() if not name.startswith("eval_")} for line in lines_of(tmp_path)]
    assert with_evaluations == lines_of(tmp_path / "plain")


def test_a_result_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no eval_none after step 2.*--keep-by"):
        run(tmp_path, patience=2, by=Criterion("eval_none", higher=True))


def test_what_is_not_a_number_is_never_better() -> None:
    lower = Criterion("eval_loss", higher=False)
    assert lower.better(3.0, None)
    assert not lower.better(math.nan, None)
    assert not lower.better(-math.inf, 1.0)
    assert not lower.better(1.0, 1.0)
    assert plain_numbers({"a": {"mean": 1, "low": 0}, "b": {"mean": None}, "c": 2.5, "d": math.nan, "e": "x"}) == {"a": 1.0, "c": 2.5}


def test_two_objectives_do_not_share_best_weights(tmp_path: Path) -> None:
    _, selection, _ = run(tmp_path, patience=2)
    other, _ = build(DPO(), How())
    with pytest.raises(CheckpointError, match="other parameters"):
        selection.restore_best(other, 8)
