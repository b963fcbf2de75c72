"""Inner products of losses' gradients at the output layer, over a step: against autograd, whatever the split and the path of the scorer."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from finegrain.models.scorer import causal_lm
from finegrain.train.loop import Trainer, step_statistics
from finegrain.types import OUTPUT_GRAM, Pair
from tests.train.harness import HUGE, How, build

STEP = 1


def losses(pair: Pair) -> Tensor:
    """Two losses of each token (B, T, 2)."""
    side = pair.answer
    logp = torch.where(side.mask, side.logp, 0.0)
    return torch.stack([-logp, (logp + 4.0).square() / 7], -1)


class TwoLosses:
    """Each pulls at the log-probabilities in its own way."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    temperature: ClassVar[float] = 0.8

    def output_slopes(self, pair: Pair) -> Tensor:
        with torch.enable_grad():
            pair.answer.logp.requires_grad_()
            found = losses(pair)
            return torch.stack([torch.autograd.grad(found[..., place].sum(), pair.answer.logp, retain_graph=True)[0] for place in range(2)], -1)

    def __call__(self, pair: Pair) -> Tensor:
        return losses(pair).sum((1, 2))


def by_autograd(trainer: Trainer, rows: Tensor | None = None) -> Tensor:
    plan = build(TwoLosses(), How(dtype=torch.float64))[1]
    (batch,) = trainer.batches(plan.step(STEP), ("answer",))
    found = losses(trainer.pair(batch, {}, scored=True))
    weight = causal_lm(trainer.scorer.model).get_output_embeddings().weight
    gradients = torch.stack([torch.autograd.grad(found[..., place].sum(), weight, retain_graph=True)[0].flatten() for place in range(2)])
    return gradients @ gradients.T


@pytest.mark.parametrize(
    "how", [How(dtype=torch.float64), How(dtype=torch.float64, micro_tokens=55), How(dtype=torch.float64, branched=False)], ids=repr
)
def test_as_autograd(how: How) -> None:
    trainer, plan = build(TwoLosses(), how)
    found = step_statistics(trainer, plan.step(STEP))[OUTPUT_GRAM]
    want = by_autograd(build(TwoLosses(), How(dtype=torch.float64, branched=how.branched, micro_tokens=HUGE))[0])
    torch.testing.assert_close(found, want, rtol=1e-7, atol=0)
    assert found[0, 1] == found[1, 0]
    assert all(parameter.grad is None for parameter in trainer.parameters())
