"""The pair loss of MOSS-RLHF: Bradley-Terry with a lower bound on the probability, and language modelling of the chosen answer.

    L = -(1 - a) log(sigma(f z - g) + epsilon) - a log(sigma(-(f z - g)) + epsilon) + lm_factor * CE(chosen),   z = score(chosen) - score(rejected)

Source: Wang et al. 2024, https://arxiv.org/abs/2401.06080; the bound and the language term are only in the authors' code (rm/reward_trainer.py).
Deviations: the code has neither flip f, margin g nor smoothing a; they are the columns of `loss:bradley-terry`, so that repaired data work with both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from finegrain.checked import NonNegativeFloat, ShareBelowOne, checked
from finegrain.ops.masked import masked_sum
from finegrain.rewards.bradley_terry import pair_labels, pair_losses
from finegrain.rewards.contrast import Contrast, NoContrast, Swav
from finegrain.rewards.heads import RewardHead
from finegrain.types import Gathered, Pair, Term, Terms


def floored_loss(
    difference: Float[Tensor, "... B"],
    *,
    epsilon: float,
    label_smoothing: Float[Tensor, " B"] | float = 0.0,
    margin: Float[Tensor, " B"] | float = 0.0,
    flip: Float[Tensor, " B"] | float = 1.0,
) -> Float[Tensor, "... B"]:
    """Cross-entropy of the label, at most -log epsilon, so that a badly misordered pair has no gradient."""
    z = flip * difference - margin
    floor = torch.full_like(z, epsilon).log()
    right, wrong = torch.logaddexp(logsigmoid(z), floor), torch.logaddexp(logsigmoid(-z), floor)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


@dataclass(frozen=True, kw_only=True)
@checked
class SecretsRM:
    """Hyper-parameters of the loss."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

    epsilon: ShareBelowOne = 1e-5
    """Added to the probability as a lower bound; 0 is Bradley-Terry."""
    lm_factor: NonNegativeFloat = 0.0
    """Weight of the chosen answer's cross-entropy per token."""
    centre: NonNegativeFloat = 0.0
    """Weight of (score(chosen) + score(rejected))^2, as in loss:bradley-terry."""
    contrast: Contrast = field(default_factory=NoContrast)
    """Contrastive term on the features: no-contrast, sim-cse, swav."""

    @property
    def needs(self) -> frozenset[str]:
        """Log-probabilities for the language term, features for the contrastive one."""
        return frozenset({"logp"} if self.lm_factor else ()) | self.contrast.needs

    @property
    def statistics(self) -> Callable[[Pair], Mapping[str, Gathered]] | None:
        """Views of the whole step, only for the contrastive term."""
        return None if isinstance(self.contrast, NoContrast) else self.contrast.statistics

    @property
    def make_modules(self) -> Callable[[int, torch.Generator], Mapping[str, nn.Module]] | None:
        """Prototypes that train beside the model, where the contrastive term has any."""
        return self.contrast.make_modules if isinstance(self.contrast, Swav) else None

    def __call__(self, head: RewardHead, pair: Pair) -> Terms:
        """pair and contrast: means over pairs, the members' mean under their bootstrap weights; lm: mean over the chosen answers' tokens."""
        labels = pair_labels(pair)
        losses = pair_losses(head, pair, lambda difference: floored_loss(difference, epsilon=self.epsilon, **labels), self.centre)
        terms = {"pair": Term(losses, torch.ones_like(losses))}
        if self.lm_factor:
            mask = pair.chosen.mask
            terms["lm"] = Term(-masked_sum(pair.chosen.logp.to(losses.dtype), mask), mask.sum(-1).to(losses.dtype), self.lm_factor)
        if not isinstance(self.contrast, NoContrast):
            terms["contrast"] = Term(self.contrast(pair), torch.ones_like(losses), self.contrast.weight)
        return terms
