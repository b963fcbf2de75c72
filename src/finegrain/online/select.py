"""Which answers of a buffer train: filters by the reward of an answer among those to its prompt (PF-PPO).

    the N answers of a prompt in order, R_1 >= ... >= R_N; one of them is drawn with probability w_i
    best-only w = (1, 0, ..., 0)   best-random w = (1/2, 1/(2(N-1)), ..., 1/(2(N-1)))   best-worst w = (1/2, 0, ..., 0, 1/2)   power w ~ |R|^k

Baselines and whitening have seen all N before; the updates are those of plain PPO, without a correction for w.
Source: https://arxiv.org/abs/2409.06957; authors' code swtheing/PF-PPO-RLHF, which draws with replacement; in its other build (`openrlhf_filter`)
two of N are kept.
Deviations: one draw per buffer, where the code draws anew for every minibatch; each prompt gets as many draws as it has answers, in expectation;
groups without a difference in reward are left out (`drop_ties`); how thresholds become weights is our reading [choice]. The reward is the one
after penalties, scale and clip, without the leash [choice].
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.errors import UsageError
from finegrain.ops.precision import to_widest

Rows = Float[Tensor, " N"]

STREAM = 0x5E1EC7
"""Keeps the draws of a selection apart from other draws by the same seed."""


@dataclass(frozen=True, kw_only=True)
class Resample:
    """Answers are drawn with replacement from the whole buffer, as many as it has (the authors' code); one drawn twice trains twice."""


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The answers of the filter train once each, the others not at all; of those chosen at random best-random takes one (`openrlhf_filter`)."""


Draw = Resample | Subset


@dataclass(frozen=True, kw_only=True)
class KeepAll:
    """Every answer trains, once."""


@dataclass(frozen=True, kw_only=True)
@checked
class RewardFilter:
    """What all filters share."""

    drop_ties: bool = True
    """Whether a prompt is left out whose answers all have the same reward: there a filter picks by position."""

    def weigh(self, reward: Rows) -> Rows:
        """Probability of each answer of one prompt; all 0 where none passes."""
        raise NotImplementedError

    def pick(self, reward: Rows, generator: np.random.Generator) -> Bool[Tensor, " N"]:
        """The answers of one prompt that `Subset` keeps."""
        return self.weigh(reward) > 0


@dataclass(frozen=True, kw_only=True)
class Even(RewardFilter):
    """All answers have the same probability: plain PPO in expectation, the control of the others."""

    def weigh(self, reward: Rows) -> Rows:
        """1 / N."""
        return torch.full_like(reward, 1 / len(reward))


@dataclass(frozen=True, kw_only=True)
@checked
class Power(RewardFilter):
    """In proportion to |reward|^k, for rewards around 0 (PPO-pow-k); where all are above 0 it prefers high ones."""

    k: PositiveFloat = 2.0
    """The exponent (the paper: 1, 2, 3)."""
    by_prompt: bool = True
    """Whether the probabilities add up to 1 for each prompt (the paper); False: prompts with larger rewards are drawn more often (its code)."""

    def weigh(self, reward: Rows) -> Rows:
        """In proportion to the N answers of the prompt alone, or, without `by_prompt`, to those of all."""
        raw = reward.abs() ** self.k
        return raw / (raw.sum().clamp(min=torch.finfo(raw.dtype).tiny) if self.by_prompt else len(raw))


@dataclass(frozen=True, kw_only=True)
@checked
class RankFilter(RewardFilter):
    """What filters share that say which answers they are about."""

    draw: Draw = field(default_factory=Resample)
    """Drawn with replacement by the weights (resample), or kept once each (subset)."""


@dataclass(frozen=True, kw_only=True)
class BestOnly(RankFilter):
    """The best answer alone (BoN)."""

    def weigh(self, reward: Rows) -> Rows:
        """1 for the first of the best ones."""
        return _one(reward, best(reward))


@dataclass(frozen=True, kw_only=True)
class BestRandom(RankFilter):
    """The best answer half of the time, any other one otherwise (BR)."""

    def weigh(self, reward: Rows) -> Rows:
        """1/2 and 1 / (2 (N - 1))."""
        first = _one(reward, best(reward))
        return first if len(reward) == 1 else first / 2 + (1 - first) / (2 * (len(reward) - 1))

    def pick(self, reward: Rows, generator: np.random.Generator) -> Bool[Tensor, " N"]:
        """The best one and one of the others."""
        kept = _one(reward, best(reward)) > 0
        if len(reward) > 1:
            kept[int(generator.choice((~kept).nonzero()[:, 0].numpy()))] = True
        return kept


@dataclass(frozen=True, kw_only=True)
class BestWorst(RankFilter):
    """The best and the worst answer, half of the time each (BW)."""

    def weigh(self, reward: Rows) -> Rows:
        """1/2 and 1/2; 1 for a single answer."""
        return (_one(reward, best(reward)) + _one(reward, worst(reward))) / 2


@dataclass(frozen=True, kw_only=True)
@checked
class Top(RankFilter):
    """The answers whose reward reaches a threshold, evenly."""

    top: float = 0.5
    """Least reward; the paper tunes it on held-out data, in the units of the reward (number: ours)."""

    def weigh(self, reward: Rows) -> Rows:
        """0 for all where none reaches it."""
        return _shares(reward >= self.top, reward)


@dataclass(frozen=True, kw_only=True)
@checked
class TopRandom(RankFilter):
    """The answers whose reward reaches a threshold half of the time, any of the others otherwise; where one kind is missing, the other."""

    top: float = 0.5
    """As in `Top`."""

    def weigh(self, reward: Rows) -> Rows:
        """1/2 in even shares for each kind."""
        return _halves(reward >= self.top, reward < self.top, reward)

    def pick(self, reward: Rows, generator: np.random.Generator) -> Bool[Tensor, " N"]:
        """All that reach it, and of the others each with probability 1/2."""
        return (reward >= self.top) | torch.from_numpy(generator.random(len(reward)) < 0.5)


@dataclass(frozen=True, kw_only=True)
@checked
class TopBottom(RankFilter):
    """The answers at or above one threshold half of the time, those at or below another one otherwise; none of those between."""

    top: float = 0.5
    """As in `Top`."""
    bottom: float = -0.5
    """Largest reward of the lower ones (number: ours)."""

    def __post_init__(self) -> None:
        """Stops where an answer would be both."""
        if self.bottom >= self.top:
            raise UsageError(f"bottom must be below top, got {self.bottom:g} and {self.top:g}")

    def weigh(self, reward: Rows) -> Rows:
        """1/2 in even shares for each kind; 0 for all where there is neither."""
        return _halves(reward >= self.top, reward <= self.bottom, reward)


Selection = KeepAll | Even | BestOnly | BestRandom | BestWorst | Power | Top | TopRandom | TopBottom


def best(reward: Rows) -> int:
    """Place of the first answer with the largest reward."""
    return int(reward.argmax())


def worst(reward: Rows) -> int:
    """Place of the last answer with the smallest reward, so that it is the best one only where there is no other."""
    return len(reward) - 1 - int(reward.flip(0).argmin())


def _one(reward: Rows, place: int) -> Rows:
    found = torch.zeros_like(reward)
    found[place] = 1
    return found


def _shares(kept: Bool[Tensor, " N"], reward: Rows) -> Rows:
    return kept.to(reward.dtype) / kept.sum().clamp(min=1)


def _halves(some: Bool[Tensor, " N"], others: Bool[Tensor, " N"], reward: Rows) -> Rows:
    both = _shares(some, reward) + _shares(others, reward)
    return both / both.sum().clamp(min=1)


class WeighedBuffer(NamedTuple):
    """A filter's view of a buffer."""

    weight: Float[Tensor, " B"]
    """How often each answer is expected to train: its probability times the number of answers to its prompt; 0 for those that take no part."""
    groups: Sequence[Int[Tensor, " _"]]
    """The answers of each prompt from which something trains."""
    ties: int
    """Prompts whose answers all have the same reward, of at least two."""
    empty: int
    """Prompts of which no answer passes."""


def weigh_answers(chosen: RewardFilter, reward: Float[Tensor, " B"], group: Int[Tensor, " B"], takes_part: Bool[Tensor, " B"]) -> WeighedBuffer:
    """Weights of all answers of a buffer; `takes_part`: those that have a reward and train."""
    weight, groups, ties, empty = torch.zeros_like(to_widest(reward)), [], 0, 0
    for prompt in torch.unique(group):
        rows = ((group == prompt) & takes_part).nonzero()[:, 0]
        if not len(rows):
            continue
        own = to_widest(reward[rows])
        tied = len(rows) > 1 and bool((own == own[0]).all())
        ties += tied
        probability = chosen.weigh(own)
        if tied and chosen.drop_ties:
            continue
        if not probability.any():
            empty += 1
            continue
        weight[rows] = probability * len(rows)
        groups.append(rows)
    return WeighedBuffer(weight, groups, ties, empty)


class SelectedAnswers(NamedTuple):
    """What trains of a buffer."""

    rows: Int[Tensor, " S"]
    """Places of answers in the order of the buffer; one that is drawn several times stands there several times."""
    weighed: WeighedBuffer

    def facts(self, reward: Float[Tensor, " B"], takes_part: Bool[Tensor, " B"]) -> dict[str, float]:
        """Numbers to log: the share of answers that train at least once, rows, prompts without a difference or with none that passes, mean reward."""
        found = {
            "selection/kept": len(torch.unique(self.rows)) / max(1, int(takes_part.sum())),
            "selection/rows": float(len(self.rows)),
            "selection/ties": float(self.weighed.ties),
            "selection/empty": float(self.weighed.empty),
        }
        return found | ({"selection/reward": float(reward[self.rows].mean())} if len(self.rows) else {})


def select_answers(
    chosen: RewardFilter, reward: Float[Tensor, " B"], group: Int[Tensor, " B"], takes_part: Bool[Tensor, " B"], seed: Sequence[int]
) -> SelectedAnswers:
    """The answers that train, by draws that depend on the seed alone."""
    weighed, generator = weigh_answers(chosen, reward, group, takes_part), np.random.default_rng([*seed, STREAM])
    counts = torch.zeros(len(reward), dtype=torch.long)
    if isinstance(chosen, RankFilter) and isinstance(chosen.draw, Subset):
        for rows in weighed.groups:
            counts[rows] = chosen.pick(to_widest(reward[rows]), generator).long()
    elif weighed.groups:
        draws, probability = sum(map(len, weighed.groups)), weighed.weight.numpy().astype(np.float64)
        counts = torch.from_numpy(generator.multinomial(draws, probability / probability.sum()))
    return SelectedAnswers(torch.arange(len(reward)).repeat_interleave(counts), weighed)
