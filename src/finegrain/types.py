"""Records shared by several packages, and the protocols of the replaceable parts.

Shape letters: B rows, T response tokens (padded), M ensemble members. Log-probabilities are in nats.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class CharSpan(NamedTuple):
    """Characters start..end-1 of a response text carry `value`. Whoever reads the place and the value alone unpacks `start, end, value, *_`."""

    start: int
    """In code points."""
    end: int
    value: float
    std: float | None = None
    """Standard deviation of the value, where its source states one; None means unknown, never 0."""
    aspect: str = ""
    """What the passage is good or bad in (factuality, fluency ...); empty where the source does not say."""
    annotator: str = ""
    """Who marked it; empty where the source does not say."""


PlainSpan = tuple[int, int, float]
"""(start, end, value) alone, as computed values and planted truths are written."""


class SampledTokens(NamedTuple):
    """What is known of the tokens of answers that a policy sampled; 0 outside the mask. K values: one per reward that is kept apart, else 1."""

    old_logp: Float[Tensor, "B T"]
    """log pi(y_t | x, y_<t), nats, of the policy that sampled, in training numerics and at the sampling temperature."""
    advantage: Float[Tensor, "B T"]
    """In units of the reward, or whitened."""
    returns: Float[Tensor, "B T K"] | None = None
    """What values regress to, NaN where a reward did not judge the answer; None where nothing is fitted to them."""
    old_values: Float[Tensor, "B T K"] | None = None
    """The values when the answers were sampled."""
    keep: Float[Tensor, "B T"] | None = None
    """Weight of each token in the policy's own loss, beside `Side.weight`; None: 1 everywhere. The critic, leash and entropy do not read it."""
    advantages: Float[Tensor, "B T n"] | None = None
    """Of each reward, where every update finds anew how they are combined; None: `advantage` is all."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One response per row, token by token. A score is stored at the token it evaluates."""

    logp: Float[Tensor, "B T"]
    """log pi(y_t | x, y_<t) of the policy, nats; garbage where `mask` is False."""
    mask: Bool[Tensor, "B T"]
    """True on response tokens that train (EOS included), False on padding and on turns of other roles."""
    ref_logp: Float[Tensor, "B T"] | None = None
    """The same under the reference, nats; None when the method needs no reference."""
    weight: Float[Tensor, "B T"] | None = None
    """Token credit that multiplies log-ratios, the same on policy and reference; None means 1."""
    reward: Float[Tensor, "B T"] | None = None
    """A scorer's token reward in its own units; None when no credit method wrote one."""
    segment: Int[Tensor, "B T"] | None = None
    """Segment ids 0, 1, ... within each row, -1 outside the mask; None means that every token is its own segment."""
    labels: Float[Tensor, "B T A"] | None = None
    """Annotators' label of each token and aspect, from 0 (bad) to 1 (good); None when no loss made them."""
    prompt_logp: Float[Tensor, "B P"] | None = None
    """Log-probabilities of the prompt tokens that have a predecessor, nats; on request."""
    prompt_mask: Bool[Tensor, "B P"] | None = None
    """True on prompt tokens that have a predecessor; on request."""
    entropy: Float[Tensor, "B T"] | None = None
    """Entropy of the policy's next-token distribution, nats; on request."""
    kl: Float[Tensor, "B T"] | None = None
    """KL(policy || reference) over the full vocabulary at each position, nats; on request."""
    reference_kl: Float[Tensor, "B T"] | None = None
    """KL(reference || policy), the other direction, of tdpo and sparsepo; on request."""
    q: Float[Tensor, "B T"] | None = None
    """Q-value of the taken token, in the units of the reward; on request."""
    q_logp: Float[Tensor, "B T"] | None = None
    """log softmax(Q)[y_t], nats: the policy that the Q-values imply; on request."""
    outputs: Float[Tensor, "B T K"] | None = None
    """The outputs of a head with K outputs at each token, after reading it, in the head's units; on request."""
    features: Float[Tensor, "B T H"] | None = None
    """The hidden states that such a head reads; on request."""
    reading: Float[Tensor, "B T K"] | None = None
    """What the objective's reader made of the reference's hidden states at the position that predicts each token; on request."""
    values: Float[Tensor, "B T K"] | None = None
    """K value estimates before each token, read at the position that predicts it, so that they do not depend on the token; on request."""
    sampled: SampledTokens | None = None
    """None for answers of a data file."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The input of an objective: response sides by role, and the values of the rows."""

    sides: Mapping[str, Side]
    """Side by role: chosen and rejected, answer (unpaired rows, demonstrations), mismatched ..."""
    columns: Mapping[str, Float[Tensor, " B"]] = field(default_factory=dict)
    """Numbers of the row by name: label, margin, weight ..."""
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    """The statistics declared by the method, over the whole optimiser step and all ranks; detached."""
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    """The modules declared by the method in `modules`."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """The state declared by the method in `state`, as of the start of the step."""

    @property
    def chosen(self) -> Side:
        """The preferred answers."""
        return self.sides["chosen"]

    @property
    def rejected(self) -> Side:
        """The dispreferred answers."""
        return self.sides["rejected"]

    @property
    def answer(self) -> Side:
        """The answers of unpaired rows and demonstrations."""
        return self.sides["answer"]

    def swapped(self) -> "Pair":
        """The same rows with chosen and rejected exchanged: the sides, the columns whose names say a side, and statistics made for both orders.

        Other columns stay: a margin is the size of a preference, whichever way it points.
        """
        return replace(
            self,
            sides={**self.sides, "chosen": self.rejected, "rejected": self.chosen},
            columns={of_other_side(name): value for name, value in self.columns.items()},
            statistics={_other_order(name, self.statistics): value for name, value in self.statistics.items()},
        )


SECOND_STREAM = "second_stream"
"""Column that a run with a second stream makes: 1 for its rows, 0 for the others."""
SWAPPED = "swapped/"
"""Before the name of a statistic that was made of the swapped pair."""
_SIDE = re.compile(r"(?<![A-Za-z0-9])(chosen|rejected)(?![A-Za-z0-9])")
"""A side in the name of a column: `chosen_score`, `is_rejected_safe`, `annotated/chosen`."""
_OTHER = {"chosen": "rejected", "rejected": "chosen"}


def of_other_side(name: str) -> str:
    """The name of a column once chosen and rejected are exchanged: `is_rejected_safe` of `is_chosen_safe`; of a column of neither, its own."""
    return _SIDE.sub(lambda found: _OTHER[found[0]], name)


def _other_order(name: str, known: Mapping[str, Any]) -> str:
    other = name.removeprefix(SWAPPED) if name.startswith(SWAPPED) else SWAPPED + name
    return other if other in known else name


@dataclass(frozen=True)
class Term:
    """One additive part of a loss with its own denominator.

    The loop adds coefficient * sum(value) / sum(count), both sums over the whole optimiser step and all ranks.
    """

    value: Float[Tensor, " B"]
    """Per-row sum of the averaged quantity."""
    count: Float[Tensor, " B"]
    """Per-row contribution to the denominator (1 for a mean over rows, tokens for a mean over tokens).

    Depends on masks, weights and columns only, unless it is `late`.
    """
    coefficient: float = 1.0
    late: bool = False
    """Whether the count depends on what the pass finds (tokens whose gate is open): the gradient is divided by it after the pass."""


Terms = dict[str, Term]


def row_losses(result: Tensor | Terms) -> Float[Tensor, " B"]:
    """Each row's loss alone, of whatever an objective returned: every term over the row's own count, 0 where it counts nothing."""
    if isinstance(result, Tensor):
        return result
    rows = [
        term.coefficient * torch.where(term.count > 0, term.value / torch.where(term.count > 0, term.count, 1.0), 0.0) for term in result.values()
    ]
    return torch.stack(rows).sum(0)


class RowLoss(NamedTuple):
    """A term of a micro-batch as a gradient rule receives it; the loss of the step is the sum of share * value over rows, terms and ranks."""

    value: Float[Tensor, " B"]
    """As the objective gave it, with its graph."""
    share: Float[Tensor, " B"]
    """The term's coefficient times the row's `weight`, over the term's count in the whole step."""


class Summed(NamedTuple):
    """A statistic that is added over micro-batches and ranks."""

    value: Float[Tensor, "..."]


OUTPUT_GRAM = "output_gram"
"""The statistic that the loop makes of an objective's `output_slopes`: (n, n) inner products of the losses' gradients at the output layer."""


class Gathered(NamedTuple):
    """A statistic that is concatenated over micro-batches and ranks, in planned row order."""

    value: Float[Tensor, "B ..."]


class Scored(NamedTuple):
    """A score with its uncertainty, of sequences (B,) or of tokens (B, T)."""

    mean: Float[Tensor, "..."]
    std: Float[Tensor, "..."] | None = None
    """None means unknown, never 0."""
    members: Float[Tensor, "..."] | None = None
    """(M, ...): the single scores behind the mean, where there are several."""
    member_std: Float[Tensor, "..."] | None = None
    """(M, ...): the standard deviation of each member, where available."""


class Initialisation(NamedTuple):
    """What a method computes from the rows of the first step, before training."""

    state: Mapping[str, Tensor]
    """Tables before the initialisation."""
    statistics: Callable[[Pair], Mapping[str, Summed | Gathered]]
    """What is read from the rows, without gradient."""
    settle: Callable[[Mapping[str, Tensor], nn.Module], Mapping[str, Tensor]]
    """(these over the whole step, the head) -> the tables; moves the head to match the data."""


class AnswerScores(NamedTuple):
    """What a reward model says of one answer."""

    tokens: Scored
    """(T,): on the caller's tokens."""
    answer: float
    """Of the whole answer."""


class WeightMeaning(StrEnum):
    """The meaning of a credit's token weights: an objective accepts those that it can multiply by."""

    KEEP_MASK = "a keep-mask: 1 where a token's own score agrees with the label of its answer"
    LABEL_PROBABILITY = "the probability that a token deserves the label of its answer"
    SELECTION = "1 where a signal or a draw selects the token, whatever it says of the label"
    NOTHING = "no weight, token rewards alone"
    CERTAINTY = "the certainty of a token's reward, whatever its sign"
    MULTIPLIER = "a user-defined multiplier"


LABEL_WEIGHTS = frozenset({WeightMeaning.KEEP_MASK, WeightMeaning.LABEL_PROBABILITY, WeightMeaning.SELECTION, WeightMeaning.MULTIPLIER})
"""Meanings of how far a token carries the label of its answer: weights for losses of labelled answers."""


class TokenCredit(NamedTuple):
    """A credit method's values for the tokens of B responses."""

    weight: Float[Tensor, "B T"] | None = None
    reward: Float[Tensor, "B T"] | None = None
    segment: Int[Tensor, "B T"] | None = None


@runtime_checkable
class Objective(Protocol):
    """A loss: one value per row, or `Terms`. Never averages over the batch. `train.contract.Contract` lists what it may declare."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"] | Terms:
        """Loss of each row (B,), or named terms with their own denominators."""


Ragged = list[np.ndarray]
"""One (T_i,) array per answer, in the order of the data."""


@dataclass(frozen=True)
class TokenColumns:
    """Values for the tokens of all answers of one role, made before training by a credit, a head or an objective; None for an answer without them."""

    weight: Sequence[np.ndarray | None]
    reward: Sequence[np.ndarray | None]
    segment: Sequence[np.ndarray | None]
    annotated: Sequence[bool]
    """False where the answer had no signal."""
    labels: Sequence[np.ndarray | None] | None = None
    """(T, A) annotators' labels by aspect; None where nobody asked for them."""
    reward_std: Sequence[np.ndarray | None] | None = None
    """Standard deviation of `reward`, for reports alone; None where the signal has none."""

    @classmethod
    def of(
        cls, *, weight: Sequence[np.ndarray] | None = None, reward: Sequence[np.ndarray] | None = None, segment: Sequence[np.ndarray] | None = None
    ) -> "TokenColumns":
        """Columns that every answer has."""
        count = len(next(values for values in (weight, reward, segment) if values is not None))
        absent: list[np.ndarray | None] = [None] * count
        weights, rewards, segments = (absent if values is None else list(values) for values in (weight, reward, segment))
        return cls(weights, rewards, segments, [True] * count)

    @property
    def filled(self) -> frozenset[str]:
        """Fields that some answer has values of."""
        fields = {"weight": self.weight, "reward": self.reward, "segment": self.segment, "labels": self.labels or ()}
        return frozenset(name for name, values in fields.items() if any(value is not None for value in values))


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(count)."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


Json = dict[str, Any]
