"""How several rewards become one: summed before advantages are estimated, or each with advantages of its own.

Source: TRL 1.16's GRPOTrainer (`multi_objective_aggregation`); normalising before the sum is GDPO, https://arxiv.org/abs/2601.05242 (number: memory).
Deviations: rewards per token are summed with the same numbers as their answer's, so that the whole is the same; a reward that did not judge an
answer counts as 0 in its sum, as in TRL, and an answer that none judged has none.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.errors import UsageError
from finegrain.online.group_statistics import group_statistics
from finegrain.online.mgda import MGDA
from finegrain.online.pama import PAMA
from finegrain.online.rollout import Rollout
from finegrain.online.transforms import CombinedRewards

Rows = Float[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class SumRewards:
    """The weighted sum. With an advantage that normalises within groups this is TRL's `sum_then_normalize`."""

    normalises: ClassVar[bool] = False

    def __call__(self, rollout: Rollout) -> CombinedRewards:
        """Rewards of the answers."""
        return sum_rewards(rollout)


@dataclass(frozen=True, kw_only=True)
@checked
class NormaliseThenSum:
    """Each reward minus its group's mean over its group's standard deviation, the weighted sum, and that again over the buffer.

    This is TRL's `normalize_then_sum`; an advantage beside it must not normalise: `group-mean` leaves it as it is.
    """

    normalises: ClassVar[bool] = True

    epsilon: PositiveFloat = 1e-4
    """Added to standard deviations."""

    def __call__(self, rollout: Rollout) -> CombinedRewards:
        """Rewards of the answers, in standard deviations."""
        summed = sum_rewards(rollout)
        sequence, tokens = split_by_reward(rollout)
        whole, total, dense = sequence + tokens.sum(1), torch.zeros_like(summed.sequence), torch.zeros_like(summed.tokens)
        for place, weight in enumerate(rollout.weights):
            judged = ~whole[:, place].isnan()
            own = group_statistics(whole[:, place], rollout.group, judged)
            total = total + torch.where(judged, weight * own.deviation / (own.std + self.epsilon), 0.0)
            dense = dense + torch.where(judged, weight / (own.std + self.epsilon), 0.0)[:, None] * tokens[..., place]
        total, std = standardise_rows(total, summed.judged, self.epsilon)
        dense = dense / (std + self.epsilon)
        return CombinedRewards(torch.where(summed.judged, total - dense.sum(1), torch.nan), dense)


@dataclass(frozen=True, kw_only=True)
class SumAdvantages:
    """Each reward has its own values and advantages, whitened by themselves; the policy trains on the advantages' weighted sum."""

    normalises: ClassVar[bool] = False


Apart = SumAdvantages | MGDA | PAMA
"""Each reward has values, advantages and returns of its own."""
Combination = SumRewards | NormaliseThenSum | Apart


def split_rollout(rollout: Rollout) -> list[Rollout]:
    """The same answers once for each reward, with its values alone; raises UsageError where there are not as many values as rewards."""
    count = rollout.sequence.shape[1]
    if rollout.values is not None and rollout.values.shape[-1] != count:
        raise UsageError(f"the critic has {rollout.values.shape[-1]} values per token; {count} rewards that are kept apart have {count}")
    return [
        replace(
            rollout,
            sequence=rollout.sequence[:, place : place + 1],
            tokens=rollout.tokens[..., place : place + 1],
            values=None if rollout.values is None else rollout.values[..., place : place + 1],
            weights=(1.0,),
            names=rollout.names[place : place + 1],
        )
        for place in range(count)
    ]


def split_by_reward(rollout: Rollout) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B T n"]]:
    """Rewards of answers and of tokens; the tokens have 0 outside the mask and where that reward did not judge the answer."""
    live = rollout.mask[..., None] & ~rollout.sequence.isnan()[:, None]
    return rollout.sequence, torch.where(live, rollout.tokens, 0.0)


def sum_rewards(rollout: Rollout) -> CombinedRewards:
    """The weighted sum over the rewards."""
    sequence, tokens = split_by_reward(rollout)
    weights = sequence.new_tensor(rollout.weights)
    total = torch.where(sequence.isnan(), 0.0, sequence * weights).sum(1)
    return CombinedRewards(torch.where(sequence.isnan().all(1), torch.nan, total), (tokens * weights.to(tokens.dtype)).sum(-1))


def standardise_rows(values: Rows, judged: Bool[Tensor, " B"], epsilon: float) -> tuple[Rows, Tensor]:
    """(values - mean) / (unbiased std + epsilon) over all judged answers, 0 elsewhere; and the std."""
    everyone: Int[Tensor, " B"] = torch.zeros(len(values), dtype=torch.long, device=values.device)
    own = group_statistics(values, everyone, judged)
    std = own.std[judged][:1].sum()
    return own.deviation / (std + epsilon), std
