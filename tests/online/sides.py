"""One side of sampled answers for tests of the losses: ragged, float64, NaN outside the mask."""

import torch
from torch import Tensor

from finegrain.types import Pair, SampledTokens, Side, Terms

MASK = torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]


def make_side(seed: int = 0, *, values: int = 1, drift: float = 0.3, weight: Tensor | None = None, junk: float = torch.nan) -> Side:
    """Answers with everything that a loss may read; log-probabilities, entropies and values are leaves."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*more: int) -> Tensor:
        drawn = torch.randn(4, 5, *more, generator=generator, dtype=torch.float64)
        return torch.where(MASK.reshape(4, 5, *[1 for _ in more]), drawn, junk)

    old, old_values = draw(), draw(values)
    return Side(
        logp=(old + drift * draw()).requires_grad_(),
        mask=MASK,
        ref_logp=draw(),
        weight=weight,
        entropy=draw().requires_grad_(),
        values=(old_values + drift * draw(values)).requires_grad_(),
        sampled=SampledTokens(old, draw(), draw(values), old_values),
    )


def pair_of(side: Side, **columns: Tensor) -> Pair:
    return Pair(sides={"answer": side}, columns=columns)


def total(terms: Terms) -> Tensor:
    return torch.stack([term.coefficient * term.value.sum() / term.count.sum() for term in terms.values()]).sum()
