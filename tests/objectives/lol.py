"""Ragged answers with rewards and advantages, for alol and its baselines."""

import torch
from torch import Tensor

from finegrain.types import Objective, Pair, Side, row_losses
from tests.objectives.worked import even_side, real


def answers(*, at_reference: bool = False, rows: int = 6, width: int = 5, seed: int = 0) -> Pair:
    """Live log-probabilities; NaN outside the mask; advantages of both signs."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(width) < torch.randint(1, width + 1, (rows, 1), generator=generator)
    draw = lambda: torch.where(mask, -torch.rand(rows, width, generator=generator, dtype=torch.float64), torch.nan)
    logp = draw()
    reference = logp.clone() if at_reference else draw() * 2
    rewards = torch.linspace(0.1, 0.9, rows, dtype=torch.float64)
    columns = {"scored_reward": rewards, "advantage": rewards - 0.4}
    return Pair(sides={"answer": Side(logp=logp.requires_grad_(), ref_logp=reference, mask=mask)}, columns=columns)


def worked(reward: float, value: float) -> Pair:
    """S(lp) = -6, S(lp_ref) = -6.5 over three tokens."""
    side = even_side(-6.0, -6.5, 3)
    columns = {"scored_reward": real(reward), "advantage": real(reward - value)}
    return Pair(sides={"answer": side}, columns=columns)


def loss_and_slope(method: Objective, pair: Pair) -> tuple[Tensor, Tensor]:
    """Rows' losses, and the gradient of their sum on the log-probabilities, 0 outside the mask."""
    losses = row_losses(method(pair))
    (slope,) = torch.autograd.grad(losses.sum(), [pair.answer.logp])
    return losses.detach(), torch.where(pair.answer.mask, slope, 0.0)


def spread(rows: Tensor, pair: Pair) -> Tensor:
    """A number of each row on all tokens of its answer."""
    return torch.where(pair.answer.mask, rows[:, None], 0.0)


def same(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
