"""Buffers of several rewards, and updates on them with the statistics that the loop would make, for tests of what keeps rewards apart."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from finegrain.online.policy_loss import PolicyLoss
from finegrain.online.rollout import Rollout
from finegrain.types import Pair, SampledTokens, Side
from tests.online.rollouts import make_rollout
from tests.online.sides import MASK


def several(count: int, *, dense: bool = True, unjudged: bool = True, weights: tuple[float, ...] | None = None) -> Rollout:
    """`count` rewards; with `unjudged` the first did not judge answer 1."""
    each = [make_rollout(seed, dense=dense, unjudged=unjudged and seed == 0) for seed in range(count)]
    return replace(
        each[0],
        sequence=torch.cat([one.sequence for one in each], 1),
        tokens=torch.cat([one.tokens for one in each], 2),
        values=torch.cat([one.values for one in each], 2),
        weights=tuple(1.0 for _ in each) if weights is None else weights,
    )


def make_pair(advantages: Tensor, *, drift: float = 0.3, weight: Tensor | None = None, seed: int = 0) -> Pair:
    """Answers of ragged lengths whose rewards have these advantages (4, 5, n); NaN outside the mask."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.where(MASK, torch.randn(4, 5, generator=generator, dtype=torch.float64), torch.nan)
    old = draw()
    clean = torch.where(MASK[..., None], advantages, torch.nan)
    sampled = SampledTokens(old, clean[..., 0], advantages=clean)
    return Pair(sides={"answer": Side(logp=(old + drift * draw()).requires_grad_(), mask=MASK, ref_logp=draw(), weight=weight, sampled=sampled)})


def drawn(count: int, seed: int = 0) -> Tensor:
    """Advantages of `count` rewards."""
    return torch.randn(4, 5, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_statistics(loss: PolicyLoss, pair: Pair, state: Mapping[str, Tensor] | None = None) -> Pair:
    """The pair as the loop shows it, for a step of one micro-batch."""
    declared = loss.statistics or loss.column_statistics
    found = {} if declared is None else {name: one.value.detach() for name, one in declared(pair).items()}
    return replace(pair, statistics=found, state=loss.state() if state is None else state)


def total(loss: PolicyLoss, pair: Pair) -> Tensor:
    """The loss of a step."""
    return torch.stack([term.coefficient * term.value.sum() / term.count.sum() for term in loss(pair).values()]).sum()


def logged(loss: PolicyLoss, pair: Pair) -> dict[str, float]:
    """What the step logs."""
    return {name: float(term.value.sum() / term.count.sum()) for name, term in loss.measures(pair).items()}
