"""How well a reward tells the true score of the answers that a filter draws: PF-PPO's criterion for choosing a filter.

    groups of similar reward: mean reward R and mean true score s of each;   s ~ a + b R by least squares over the groups
    R2 = 1 - sum (s - a - b R)^2 / sum (s - mean s)^2

Source: https://arxiv.org/abs/2409.06957.
Deviations: the paper does not say how groups are cut; ours hold equal shares of what the filter draws, in the order of the reward, and equal
rewards stay together [choice]. The weights of a filter are used as they are, where the paper draws by them. Nothing here has a gradient.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.checked import PositiveInt, checked
from finegrain.online.select import BestOnly, BestRandom, BestWorst, Even, Power, RewardFilter, weigh_answers
from finegrain.ops.precision import to_widest

Rows = Float[Tensor, " B"]

FILTERS: Mapping[str, RewardFilter] = {
    "none": Even(),
    "best-only": BestOnly(),
    "best-random": BestRandom(),
    "best-worst": BestWorst(),
    "power-1": Power(k=1.0),
    "power-2": Power(k=2.0),
    "power-3": Power(k=3.0),
}
"""Those of the paper's table, which need no threshold."""

FEWEST_GROUPS = 3
"""A line through two groups always fits."""


@dataclass(frozen=True, kw_only=True)
@checked
class FilterFit:
    """Least squares of true score on reward over groups."""

    r2: float | None
    """None where it is undefined, see `reason`."""
    slope: float | None
    """True score per unit of reward; below 0 the reward points the wrong way, however well the line fits."""
    intercept: float | None
    groups: int
    """With anything in them."""
    reason: str = ""
    """Why there is no number."""


def group_by_reward(reward: Rows, weight: Rows, groups: int) -> Int[Tensor, " B"]:
    """Number of each answer's group: equal shares of the weight in the order of the reward, by the middle of what has the same reward."""
    level = torch.unique(reward, return_inverse=True)[1]
    mass = torch.zeros(int(level.max()) + 1, dtype=weight.dtype).index_add(0, level, weight)
    middle = (mass.cumsum(0) - mass / 2) / mass.sum()
    return (middle * groups).long().clamp(max=groups - 1)[level]


def filter_r2(reward: Rows, truth: Rows, weight: Rows | None = None, *, groups: PositiveInt = 10) -> FilterFit:
    """The criterion over answers of any number of prompts; `weight`: how often each is drawn, None: alike. Answers with a NaN are left out."""
    weight = torch.ones_like(reward) if weight is None else weight
    drawn = ~reward.isnan() & ~truth.isnan() & (weight > 0)
    reward, truth, weight = (to_widest(values[drawn]) for values in (reward, truth, weight))
    if not len(reward):
        return FilterFit(r2=None, slope=None, intercept=None, groups=0, reason="no answer is drawn that has both numbers")
    place = torch.unique(group_by_reward(reward, weight, groups), return_inverse=True)[1]

    def mean(values: Rows) -> Float[Tensor, " G"]:
        total = torch.zeros(int(place.max()) + 1, dtype=values.dtype)
        return total.index_add(0, place, values * weight) / total.index_add(0, place, weight)

    return _fit(mean(reward), mean(truth))


def _fit(reward: Float[Tensor, " G"], truth: Float[Tensor, " G"]) -> FilterFit:
    count, centred, score = len(reward), reward - reward.mean(), truth - truth.mean()
    nothing = 1e-12 * max(1.0, float(truth.abs().max())) ** 2
    if count < FEWEST_GROUPS:
        return FilterFit(
            r2=None, slope=None, intercept=None, groups=count, reason=f"{count} groups of different reward; a line through two always fits"
        )
    if float(score.square().sum()) <= nothing:
        return FilterFit(r2=None, slope=0.0, intercept=float(truth.mean()), groups=count, reason="the true score is the same in all groups")
    slope = (centred * score).sum() / centred.square().sum()
    left = (score - slope * centred).square().sum()
    return FilterFit(
        r2=float(1 - left / score.square().sum()), slope=float(slope), intercept=float(truth.mean() - slope * reward.mean()), groups=count
    )


def compare_filters(
    filters: Mapping[str, RewardFilter], reward: Rows, truth: Rows, group: Int[Tensor, " B"], takes_part: Bool[Tensor, " B"], *, groups: int = 10
) -> dict[str, FilterFit]:
    """The criterion of every filter on the same answers; `takes_part`: those that have a reward and would train."""
    judged = takes_part & ~truth.isnan()
    weights = {name: weigh_answers(one, reward, group, judged).weight for name, one in filters.items()}
    return {name: filter_r2(reward, truth, weight, groups=groups) for name, weight in weights.items()}


def best_filter(fits: Mapping[str, FilterFit]) -> str | None:
    """The one with the largest number among those whose reward rises with the true score; None where there is none."""
    known = {name: fit.r2 for name, fit in fits.items() if fit.r2 is not None and fit.slope is not None and fit.slope > 0}
    return max(known, key=known.__getitem__) if known else None
