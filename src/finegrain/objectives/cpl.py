"""Contrastive preference learning (CPL): discounted sums of log-probabilities are the scores, and the rejected score counts lambda times.

    f(y) = alpha sum_t gamma^t lp_t, CPL-KL with rho_t for lp_t;   loss = -log sigma(f(y^w) - lambda f(y^l)) + bc * mean of -lp_t

Source: Hejna et al. 2023, https://arxiv.org/abs/2310.13639, and the authors' code (losses, soft labels, rank form, BC term, defaults).
Deviations: t counts the tokens that train, over all turns of an answer [choice]; a pair in which a segment has no token does not count [choice];
the rank form leaves out equal scores, which the code orders arbitrarily, and keeps saturated pairs, which it drops.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import NonNegativeFloat, PositiveFloat, PositiveInt, Range, Share, checked
from finegrain.objectives.nll import nll_term
from finegrain.ops.sequence import log_ratio, sequence_logp, token_weight
from finegrain.types import Pair, Ragged, Side, Term, Terms, TokenColumns

Rows = Float[Tensor, " B"]
Tokens = Bool[Tensor, "B T"]
Bias = Annotated[float, Range(0.0, 1.0, low_open=True)]


def biased_loss(chosen: Rows, rejected: Rows, *, bias: float, probability: Rows | float = 1.0) -> Rows:
    """p * -log sigma(f_w - lambda f_l) + (1 - p) * -log sigma(f_l - lambda f_w) of segment scores.

    p is the probability that the chosen segment is the better one, 1/2 for a tie.
    """
    return -probability * logsigmoid(chosen - bias * rejected) - (1 - probability) * logsigmoid(rejected - bias * chosen)


def rank_loss(scores: Float[Tensor, " N"], ratings: Float[Tensor, " N"], *, bias: float) -> Float[Tensor, ""]:
    """Mean of -log sigma(f_j - lambda f_i) over all i, j of N segments of which j is rated higher; 0 where no two ratings differ."""
    better = ratings.unsqueeze(0) > ratings.unsqueeze(1)
    losses = -logsigmoid(scores.unsqueeze(0) - bias * scores.unsqueeze(1))
    return torch.where(better, losses, 0.0).sum() / better.sum().clamp(min=1)


def discount(side: Side, inside: Tokens, *, gamma: float) -> Side:
    """The side with weights w_t gamma^t, where t counts the tokens inside, from 0; 0 elsewhere."""
    weight = token_weight(side)
    place = (inside.cumsum(-1) - 1).clamp(min=0).to(weight.dtype)
    return replace(side, weight=torch.where(inside, weight * gamma**place, 0.0))


@dataclass(frozen=True, kw_only=True)
@checked
class LogRatios:
    """CPL-KL: the score is a sum of log-ratios to the reference."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})

    alpha: PositiveFloat = 0.2
    """Temperature of the segment's score: dpo's beta."""
    bias: Bias = 0.75
    """The paper's lambda in (0, 1], the factor of the rejected score; 1 is the loss without bias."""

    def __call__(self, side: Side) -> Rows:
        """Score of a discounted side, nats times alpha."""
        return self.alpha * log_ratio(side)


@dataclass(frozen=True, kw_only=True)
@checked
class LogProbabilities:
    """CPL: the score is a sum of log-probabilities, without a reference."""

    needs: ClassVar[frozenset[str]] = frozenset()

    alpha: PositiveFloat = 0.1
    """Temperature of the segment's score."""
    bias: Bias = 0.5
    """The paper's lambda in (0, 1], the factor of the rejected score; below 1 a low likelihood of both segments costs."""

    def __call__(self, side: Side) -> Rows:
        """Score of a discounted side, nats times alpha."""
        return self.alpha * sequence_logp(side)


@runtime_checkable
class OffsetContext(Protocol):
    """What segments that start at a character ask of the answers before training; everything is one value or array per answer."""

    @property
    def roles(self) -> Sequence[str]:
        """Roles that the loss reads."""

    def masks(self, role: str) -> Ragged:
        """Boolean: the tokens that train."""

    def tokens_at(self, role: str, column: str) -> Sequence[int]:
        """Place of the token that holds the character which a column of numbers names."""

    def note(self, name: str, facts: Mapping[str, int]) -> None:
        """Records facts about the answers for the run."""


@dataclass(frozen=True, kw_only=True)
class WholeAnswer:
    """A segment is the whole answer."""

    columns: ClassVar[tuple[str, ...]] = ()

    def __call__(self, side: Side) -> Tokens:
        """The tokens that train."""
        return side.mask


@dataclass(frozen=True, kw_only=True)
@checked
class FromOffset:
    """A segment starts at the character that the columns `chosen_start` and `rejected_start` give."""

    columns: ClassVar[tuple[str, ...]] = ("chosen_start", "rejected_start")

    length: PositiveInt | None = None
    """Tokens of a segment; by default it ends with its answer."""

    def __call__(self, side: Side) -> Tokens:
        """The tokens that train and lie in the segment."""
        assert side.segment is not None
        return side.mask & (side.segment >= 0)

    def prepare(self, context: OffsetContext) -> dict[str, TokenColumns]:
        """Segment 0 on the tokens of every segment, -1 elsewhere; counts segments without a token in run.json."""
        made = {}
        for role in context.roles:
            cut = [self._cut(mask, first) for mask, first in zip(context.masks(role), context.tokens_at(role, f"{role}_start"), strict=True)]
            empty = sum(not (ids >= 0).any() for ids in cut)
            context.note("offset_segments", {"segments": len(cut), "without_a_token": empty})
            absent: list[np.ndarray | None] = [None] * len(cut)
            made[role] = TokenColumns(absent, absent, cut, [True] * len(cut))
        return made

    def _cut(self, mask: np.ndarray, start: int) -> np.ndarray:
        inside = mask & (np.arange(len(mask)) >= start)
        if self.length is not None:
            inside &= np.cumsum(inside) <= self.length
        return np.where(inside, 0, -1)


@dataclass(frozen=True, kw_only=True)
class ChosenAnswers:
    """The answers of the pairs that are more probably the better one; both of a tie."""

    def __call__(self, probability: Rows) -> tuple[Rows, Rows]:
        """1 where the chosen, and where the rejected answer is imitated."""
        return (probability >= 0.5).to(probability.dtype), (probability <= 0.5).to(probability.dtype)


@dataclass(frozen=True, kw_only=True)
class BothAnswers:
    """All answers, the rejected ones too."""

    def __call__(self, probability: Rows) -> tuple[Rows, Rows]:
        """1 everywhere."""
        return torch.ones_like(probability), torch.ones_like(probability)


@dataclass(frozen=True, kw_only=True)
@checked
class CPL:
    """Hyper-parameters of CPL."""

    learning_rate: ClassVar[float] = 1e-6
    """That of DPO [choice]; the authors' 1e-4 is that of small networks in robotics."""

    score: LogRatios | LogProbabilities = field(default_factory=LogRatios)
    """log-ratios (CPL-KL), or log-probabilities (CPL, no reference); each has its alpha and its bias."""
    gamma: Share = 1.0
    """Discount per token; 1 weighs all tokens alike, as the authors' code does."""
    segment: WholeAnswer | FromOffset = field(default_factory=WholeAnswer)
    """whole-answer, or from-offset: partial segments that start anywhere."""
    bc: NonNegativeFloat = 0.0
    """Weight of the behaviour-cloning term, the mean of -log pi(y_t) over tokens; the authors' CPL(BC) has 1 with bias 1."""
    bc_answers: ChosenAnswers | BothAnswers = field(default_factory=ChosenAnswers)
    """Which answers it imitates: chosen-answers or both-answers."""

    @property
    def needs(self) -> frozenset[str]:
        """A reference, where the score has one."""
        return self.score.needs

    @property
    def beta(self) -> float:
        """alpha makes rewards of log-ratios."""
        return self.score.alpha

    @property
    def columns(self) -> tuple[str, ...]:
        """Starts of the segments, where they have one."""
        return self.segment.columns

    @property
    def token_columns(self) -> tuple[str, ...]:
        """The segments, where they are not the whole answers."""
        return ("segment",) if isinstance(self.segment, FromOffset) else ()

    @property
    def prepare(self) -> Callable[[OffsetContext], Mapping[str, TokenColumns]] | None:
        """(answers) -> their segments, where they are not the whole answers."""
        return self.segment.prepare if isinstance(self.segment, FromOffset) else None

    def __call__(self, pair: Pair) -> Terms:
        """The biased loss, a mean over pairs; -log pi(y_t), a mean over the tokens that are imitated."""
        inside = {role: self.segment(pair.sides[role]) for role in ("chosen", "rejected")}
        chosen, rejected = (self.score(discount(pair.sides[role], own, gamma=self.gamma)) for role, own in inside.items())
        probability = label_probability(pair).to(chosen.dtype)
        losses = biased_loss(chosen, rejected, bias=self.score.bias, probability=probability)
        counted = inside["chosen"].any(-1) & inside["rejected"].any(-1)
        imitated = zip(inside.items(), self.bc_answers(probability), strict=True)
        parts = [(nll_term(discount(pair.sides[role], own, gamma=1.0)), taken * counted) for (role, own), taken in imitated]
        value, count = (torch.stack([taken * getattr(term, name) for term, taken in parts]).sum(0) for name in ("value", "count"))
        return {"cpl": Term(torch.where(counted, losses, 0.0), counted.to(losses.dtype)), "bc": Term(value, count, self.bc)}


def label_probability(pair: Pair) -> Rows:
    """Probability that the chosen answer is the better one: column `label_prob` where the data have it, else 1; 1/2 for a `tie`."""
    row = pair.chosen.mask.any(-1).float()
    found = pair.columns.get("label_prob", torch.ones_like(row))
    return torch.where(pair.columns["tie"] > 0.5, 0.5, found) if "tie" in pair.columns else found
