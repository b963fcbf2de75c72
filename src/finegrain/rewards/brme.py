"""Stage 2 of BRME: several Gaussian heads learn a stage-1 reward, each with its own weights of the pairs, with the backbone frozen.

    t: the stage-1 reward of an answer, standardised over the training answers (columns chosen_target, rejected_target)

Source: Yan et al. 2024, https://arxiv.org/abs/2409.15360 (from two third-party digests; loss symbols not read).
Deviations: target, negative log-likelihood and bootstrap are ours [choice]: the squared error of a sampled reward, as in the digests, has
its minimum at sd = 0 (E (mu + sd eps - t)^2 = (mu - t)^2 + sd^2), so it is used in that closed form and is not the default.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.special import log_ndtr

from finegrain.checked import checked
from finegrain.errors import DataError
from finegrain.ops.variational import HALF_LOG_TWO_PI
from finegrain.rewards.bradley_terry import bootstrap_weights
from finegrain.rewards.gaussian_ensemble import GaussianEnsemble
from finegrain.rewards.heads import sequence_score
from finegrain.types import Pair, Scored

Members = Float[Tensor, "M B"]


@dataclass(frozen=True, kw_only=True)
class NegativeLogLikelihood:
    """Each head is a density of the stage-1 reward [choice]."""

    targets: ClassVar[bool] = True

    def __call__(self, chosen: Scored, rejected: Scored, pair: Pair) -> Members:
        """Mean over the two answers, nats."""
        means, stds, targets = _answers(chosen, rejected, pair)
        return (0.5 * ((targets - means) / stds).square() + stds.log() + HALF_LOG_TWO_PI).mean(0)


@dataclass(frozen=True, kw_only=True)
class MeanSquaredSample:
    """Squared error of a sampled reward, its expectation in closed form: every sd shrinks to 0."""

    targets: ClassVar[bool] = True

    def __call__(self, chosen: Scored, rejected: Scored, pair: Pair) -> Members:
        """Mean over the two answers."""
        means, stds, targets = _answers(chosen, rejected, pair)
        return ((means - targets).square() + stds.square()).mean(0)


@dataclass(frozen=True, kw_only=True)
class PreferenceGaussian:
    """-log Phi(difference of means / its sd): the pairs themselves, without a stage 1. Mean and sd are determined up to a common scale."""

    targets: ClassVar[bool] = False

    def __call__(self, chosen: Scored, rejected: Scored, pair: Pair) -> Members:
        """Per member and pair, nats."""
        means, stds = _stacked(chosen, rejected)
        loss: Tensor = -log_ndtr((means[0] - means[1]) / stds.square().sum(0).sqrt())
        return loss


Fit = NegativeLogLikelihood | MeanSquaredSample | PreferenceGaussian


@dataclass(frozen=True, kw_only=True)
@checked
class BRME:
    """Hyper-parameters of the Gaussian heads' fit."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected")
    head_kind: ClassVar[type] = GaussianEnsemble
    frozen_backbone: ClassVar[bool] = True
    """The heads must read the features that the stage-1 reward reads [choice]."""

    fit: Fit = field(default_factory=NegativeLogLikelihood)
    """negative-log-likelihood and mean-squared-sample of a stage-1 reward, or preference-gaussian of the pairs."""

    @property
    def reads_targets(self) -> bool:
        """Whether a stage-1 reward must score the rows first."""
        return self.fit.targets

    def __call__(self, head: GaussianEnsemble, pair: Pair) -> Float[Tensor, " B"]:
        """Mean over the members, each under its own bootstrap weights."""
        losses = self.fit(sequence_score(head, pair.chosen), sequence_score(head, pair.rejected), pair)
        if len(losses) == 1:
            return losses[0]
        return (losses * bootstrap_weights(pair.columns["row"], len(losses))).mean(0)


def _stacked(chosen: Scored, rejected: Scored) -> tuple[Float[Tensor, "2 M B"], Float[Tensor, "2 M B"]]:
    """Means and standard deviations of both answers."""
    sides = chosen, rejected
    means, stds = [side.members for side in sides if side.members is not None], [side.member_std for side in sides if side.member_std is not None]
    return torch.stack(means), torch.stack(stds)


def _answers(chosen: Scored, rejected: Scored, pair: Pair) -> tuple[Tensor, Tensor, Float[Tensor, "2 1 B"]]:
    missing = [name for name in ("chosen_target", "rejected_target") if name not in pair.columns]
    if missing:
        raise DataError(
            f"loss:brme learns a stage-1 reward, but the rows lack {missing[0]}; set --model to the run of a reward model, or add the columns"
        )
    targets = torch.stack([pair.columns["chosen_target"], pair.columns["rejected_target"]])[:, None]
    means, stds = _stacked(chosen, rejected)
    present = torch.stack([pair.chosen.mask.any(-1), pair.rejected.mask.any(-1)])[:, None]
    return means, torch.where(present, stds, 1.0), targets  # an answer without a token has no standard deviation to fit
