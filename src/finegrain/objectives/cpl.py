"""Contrastive preference learning (CPL): discounted sums of log-probabilities are the scores, and the rejected score counts lambda times.

    f(y) = alpha sum_t gamma^t lp_t, CPL-KL with rho_t for lp_t;   loss = -log sigma(f(y^w) - lambda f(y^l)) + bc * mean of -lp_t

Source: Hejna et al. 2023, https://arxiv.org/abs/2310.13639, and the authors' code (losses, soft labels, rank form, BC term, defaults).
Deviations: t counts the tokens that train, over all turns of an answer [choice]; a pair in which a segment has no token does not count [choice];
the rank form leaves out equal scores, which the code orders arbitrarily, and keeps saturated pairs, which it drops.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import NonNegativeFloat, PositiveFloat, Range, Share, checked
from finegrain.objectives.nll import nll_term
from finegrain.objectives.offset_segments import FromOffset, OffsetContext, WholeAnswer
from finegrain.ops.sequence import log_ratio, sequence_logp, token_weight
from finegrain.types import Pair, Side, Term, Terms, TokenColumns

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
    found = pair.columns.get("label_prob")
    if found is None:
        found = torch.ones(len(pair.chosen.mask), device=pair.chosen.mask.device)
    return torch.where(pair.columns["tie"] > 0.5, 0.5, found) if "tie" in pair.columns else found
