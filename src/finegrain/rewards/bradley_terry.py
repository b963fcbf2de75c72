"""Bradley-Terry: logistic loss on the difference of two answers' scores, modified by the pair's columns.

    L = -(1 - a) log sigma(f z - g) - a log sigma(-(f z - g)),   z = score(chosen) - score(rejected)

a: probability that the label is wrong (1 - `label_prob`; 1/2 for a `tie`), f = -1 where `flip` is 1, g: `margin`. A `weight`
column weights the mean. A run scales the column `margin` beforehand (`--margin-scale`). Methods that clean preference data write
these columns and need no separate loss. `centre` adds centre * (score(chosen) + score(rejected))^2, which the differences do not determine
(https://arxiv.org/abs/2312.09244; TRL's center_rewards_coefficient).
Source: Bradley and Terry 1952; margin, soft label and flip as in Wang et al. 2024, https://arxiv.org/abs/2401.06080, section 2.2.
Deviations: none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import NonNegativeFloat, Range, checked
from finegrain.ops.draws import hash_to_uniform
from finegrain.rewards.heads import RewardHead, sequence_score
from finegrain.types import Pair

Differences = Float[Tensor, "... B"]


def bradley_terry_loss(
    difference: Float[Tensor, "... B"],
    *,
    label_smoothing: Float[Tensor, " B"] | float = 0.0,
    margin: Float[Tensor, " B"] | float = 0.0,
    flip: Float[Tensor, " B"] | float = 1.0,
) -> Float[Tensor, "... B"]:
    """Cross-entropy of the label under sigma(flip * difference - margin); flip is +1 or -1."""
    z = flip * difference - margin
    return -(1 - label_smoothing) * logsigmoid(z) - label_smoothing * logsigmoid(-z)


@dataclass(frozen=True, kw_only=True)
@checked
class BradleyTerry:
    """Hyper-parameters of the pair loss."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

    label_smoothing: Annotated[float, Range(0.0, 0.5)] = 0.0
    """Probability that a label is wrong where the column `label_prob` is absent, in [0, 0.5]."""
    centre: NonNegativeFloat = 0.0
    """Weight of (score(chosen) + score(rejected))^2, which keeps scores around 0 (TRL's center_rewards_coefficient, usually 0.01)."""

    def __call__(self, head: RewardHead, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss; for several members their mean, each under its own bootstrap weights."""
        labels = pair_labels(pair, self.label_smoothing)
        return pair_losses(head, pair, lambda difference: bradley_terry_loss(difference, **labels), self.centre)


def pair_labels(pair: Pair, label_smoothing: float = 0.0) -> dict[str, Tensor | float]:
    """The columns of each pair as arguments of the loss; `label_smoothing` where the column `label_prob` is absent."""
    columns = pair.columns
    smoothing: Tensor | float = 1 - columns["label_prob"] if "label_prob" in columns else label_smoothing
    if "tie" in columns:
        smoothing = torch.where(columns["tie"] > 0.5, 0.5, smoothing)
    return {
        "label_smoothing": smoothing,
        "margin": columns.get("margin", 0.0),
        "flip": 1 - 2 * columns["flip"] if "flip" in columns else 1.0,
    }


def pair_losses(head: RewardHead, pair: Pair, loss: Callable[[Differences], Differences], centre: float) -> Float[Tensor, " B"]:
    """Per-row `loss` of the scores' difference and `centre` times their squared sum; for several members their mean, each under its own weights."""
    chosen, rejected = sequence_score(head, pair.chosen), sequence_score(head, pair.rejected)
    if chosen.members is None or rejected.members is None:
        return loss(chosen.mean - rejected.mean) + centre_penalty(chosen.mean + rejected.mean, centre)
    losses = loss(chosen.members - rejected.members) + centre_penalty(chosen.members + rejected.members, centre)
    return (losses * bootstrap_weights(pair.columns["row"], len(losses))).mean(0)


def centre_penalty(total: Float[Tensor, "... B"], centre: float) -> Float[Tensor, "... B"]:
    """centre * total^2, with total the sum of a pair's scores; zeros without a centre."""
    return centre * total.square() if centre else torch.zeros_like(total)


def bootstrap_weights(rows: Float[Tensor, " B"], members: int) -> Float[Tensor, "M B"]:
    """Exp(1) weights by row number and member, the same in every epoch and for any batching (Rubin's Bayesian bootstrap)."""
    places = rows.long()[None] * members + torch.arange(members, device=rows.device)[:, None]
    return -hash_to_uniform(places).log().float()
