"""The loss of a critic: squared distance to the returns, clipped around the values that the answers were sampled with.

    1/2 max((V - return)^2, (clip(V, V_old - clip, V_old + clip) - return)^2), a mean over tokens

Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, as TRL, verl and OpenRLHF run it (the clip is in their code alone).
Deviations: with several values per token, their mean; a value without a return (NaN: its reward did not judge the answer) adds 0 to it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, PositiveInt, checked
from finegrain.online.aggregate import TokenMean
from finegrain.types import Pair, SampledTokens, Side, Term, Terms


def value_losses(
    values: Float[Tensor, "B T K"], returns: Float[Tensor, "B T K"], old_values: Float[Tensor, "B T K"] | None, clip: float | None
) -> Float[Tensor, "B T"]:
    """The loss of each token; without a clip or old values the plain square."""
    loss = (values - returns).square()
    if clip is not None and old_values is not None:
        near = torch.minimum(torch.maximum(values, old_values - clip), old_values + clip)
        loss = torch.maximum(loss, (near - returns).square())
    return loss.mean(-1) / 2


def live_weight(side: Side) -> Float[Tensor, "B T"]:
    """Weight of each token in the width of what the side was sampled with, 1 without any; 0 outside the mask."""
    advantage = read_sampled(side).advantage
    weight = torch.ones_like(advantage) if side.weight is None else side.weight.to(advantage.dtype)
    return torch.where(side.mask, weight, 0.0)


def value_term(side: Side, clip: float | None) -> Term:
    """A mean over tokens of the loss of a side's values; raises ValueError where they, or the returns, are missing."""
    sampled, weight = read_sampled(side), live_weight(side)
    if side.values is None or sampled.returns is None:
        raise ValueError("a value loss reads Side.values and the returns of the sampled answers")
    live = (weight != 0)[..., None] & ~sampled.returns.isnan()

    def clean(values: Float[Tensor, "B T K"]) -> Float[Tensor, "B T K"]:
        return torch.where(live, values, 0.0)

    old = None if sampled.old_values is None else clean(sampled.old_values)
    return TokenMean()(value_losses(clean(side.values), clean(sampled.returns), old, clip), weight)


def read_sampled(side: Side) -> SampledTokens:
    """What sampling left on the tokens; raises ValueError for answers of a data file."""
    if side.sampled is None:
        raise ValueError("this objective trains on sampled answers (`finegrain online`)")
    return side.sampled


def read_old_logp(side: Side, *, single: bool) -> Float[Tensor, "B T"]:
    """Log-probabilities of the policy that sampled; with a `single` update of a buffer those of the pass."""
    return side.logp.detach() if single else read_sampled(side).old_logp


def read_advantages(side: Side) -> Float[Tensor, "B T n"]:
    """The advantages of the rewards that are kept apart; raises ValueError where they are missing."""
    found = read_sampled(side).advantages
    if found is None:
        raise ValueError("this combination reads an advantage of each reward, and the answers have none")
    return found


@dataclass(frozen=True, kw_only=True)
@checked
class ValueLoss:
    """The objective of a critic that is a model of its own."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    needs: ClassVar[frozenset[str]] = frozenset({"sampled"})

    learning_rate: PositiveFloat = 9e-6
    """OpenRLHF's for its critic."""
    clip: PositiveFloat | None = 0.2
    """How far a value may move from the old one and still gain, in units of the return (OpenRLHF, verl: 0.5); None: no clip."""
    values: PositiveInt = 1
    """Values per token."""

    def __call__(self, pair: Pair) -> Terms:
        """One term, a mean over tokens."""
        return {"value": value_term(pair.answer, self.clip)}
