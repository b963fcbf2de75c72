"""Tables that a step replaces: once per step, over all rows, whatever the split; and the same after a resumed run."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.objectives.mask_network import SimpleAll
from finegrain.objectives.sparsepo import SparsePO
from finegrain.ops.sequence import log_ratio
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.loop import run_step
from finegrain.types import Pair
from tests.train.awkward import BUCKETS, Gates, Reliable
from tests.train.harness import How, build, train, weights

WIDE = How(dtype=torch.float64, micro_tokens=55)


def test_a_table_moves_once_a_step_for_the_rows_of_the_whole_step() -> None:
    trainer, plan = build(Gates(), WIDE)
    assert len(plan.step(0).micro[0]) > 1
    before = trainer.state["open"].clone()
    whole, _ = build(Gates(), How(dtype=torch.float64))
    (batch,) = whole.batches(type(plan.step(0))(0, 0.0, plan.step(0).rows, ((tuple(range(5)),),)), whole.contract.roles)
    pair = whole.pair(batch, {}, scored=True)
    run_step(trainer, plan.step(0))
    share = (pair.rejected.mask & (pair.rejected.logp > -4.5)).sum(1) / pair.rejected.mask.sum(1)
    assert BUCKETS == 5, "one row of this step to a bucket"
    torch.testing.assert_close(trainer.state["open"], 0.9 * before + 0.1 * share.double(), rtol=0, atol=1e-12)


@dataclass(frozen=True, kw_only=True)
class PerMicroBatch(Gates):
    """Broken: a moving average that moves with every micro-batch."""

    def after_step(self, state: Any, pair: Pair) -> dict[str, Tensor]:
        found = super().after_step(state, pair)
        return {"sum": (found["sum"] > 0).double() * found["sum"].mean(), "rows": (found["rows"] > 0).double()}


def test_a_table_that_depends_on_the_split_is_seen() -> None:
    ends = []
    for micro_tokens in (55, 10**9):
        trainer, plan = build(PerMicroBatch(), How(dtype=torch.float64, micro_tokens=micro_tokens))
        train(trainer, plan, range(2))
        ends.append(trainer.state["open"])
    assert (ends[0] - ends[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "objective",
    [Gates, Reliable, partial(SparsePO, network=SimpleAll(dropout=0.3))],
    ids=["replaced", "of a wrapper", "a reader's weights and its dropout"],
)
def test_a_resumed_run_goes_on_with_tables_and_modules(tmp_path: Path, objective: Any) -> None:
    whole, plan = build(objective(), WIDE)
    train(whole, plan, range(8))
    first, _ = build(objective(), WIDE)
    train(first, plan, range(5))
    Checkpoints(tmp_path).save(first, 5, lambda folder: None)
    again, _ = build(objective(), WIDE)
    assert Checkpoints(tmp_path).restore(again) == 5
    train(again, plan, range(5, 8))
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(again).items())


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, and what comes of it."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    given: Any = None

    def state(self) -> dict[str, Tensor]:
        return {"past": torch.zeros(2)}

    def after_step(self, state: Any, pair: Pair) -> dict[str, Tensor]:
        return {"rows": torch.ones(())}

    def update_state(self, state: Any, sums: Any) -> dict[str, Tensor]:
        return dict(self.given)

    def __call__(self, pair: Pair) -> Tensor:
        return log_ratio(pair.chosen)


class Added(Table):
    update_state = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (Table(given={"passed": torch.zeros(2)}), "update_state gives passed, which is no table of its state; known: past"),
        (Table(given={"past": torch.zeros(3)}), r"gives past the shape \(3,\); the table has \(2,\)"),
        (Added(), "after_step gives rows, which is no table of its state; known: past"),
    ],
)
def test_tables_keep_names_and_shapes(objective: Any, words: str) -> None:
    trainer, plan = build(objective, WIDE)
    with pytest.raises(UsageError, match=words):
        run_step(trainer, plan.step(0))
