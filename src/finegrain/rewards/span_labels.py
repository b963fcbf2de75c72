"""Learning from annotators' spans: tokens inside them against the other tokens of the same annotated answers, and from pairs at the same time.

    L = mean over tokens of annotated answers of -t log sigma(z) - (1 - t) log sigma(-z) + pair_weight * Bradley-Terry

z: the token's score, the log-odds that it is good; t: its label, 1 good, 0 bad. A head with a standard deviation is fitted by its likelihood of
the value 2 t - 1. An answer that nobody annotated takes part through its pair alone. With aspects, the token part is the mean over aspects.
Source: annotators' error spans by category as token labels: Wu et al. 2023, https://arxiv.org/abs/2306.01693 (memory); pairs: Bradley and Terry 1952.
Deviations: labels of tokens in place of sentences, both parts at the same time, graded and balanced labels are ours [OURS].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from finegrain.checked import NonNegativeFloat, checked
from finegrain.errors import DataError
from finegrain.ops.masked import masked_sum
from finegrain.ops.precision import to_widest
from finegrain.ops.sequence import to_wide
from finegrain.ops.variational import gaussian_log_density
from finegrain.rewards.bradley_terry import bradley_terry_loss, pair_labels, pair_losses
from finegrain.rewards.columns import AnswerContext, label_columns
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.heads import aspect_scores, token_scores
from finegrain.rewards.span_targets import Errors, Grade, Meaning, Sign, make_labels
from finegrain.rewards.token import SpanLoss, Token
from finegrain.types import Pair, Term, Terms, TokenColumns

Parts = tuple[Float[Tensor, "B T ..."], Float[Tensor, "B T ..."]]
"""The loss of each token, nats, split into what its label has of bad and of good."""


@dataclass(frozen=True, kw_only=True)
class EveryToken:
    """Every token of an annotated answer has the same weight, so that probabilities are calibrated."""

    def __call__(self, parts: Parts, labels: Float[Tensor, "B T"], counted: Bool[Tensor, "B T"]) -> Terms:
        """One mean over the tokens of the optimiser step."""
        bad, good = parts
        return {"": Term(masked_sum(bad + good, counted), masked_sum(torch.ones_like(bad), counted))}


@dataclass(frozen=True, kw_only=True)
class BalancedTokens:
    """The bad and the good tokens of an optimiser step have half of the weight each: for rare marks."""

    def __call__(self, parts: Parts, labels: Float[Tensor, "B T"], counted: Bool[Tensor, "B T"]) -> Terms:
        """A mean over what is bad, and one over what is good."""
        shares = {"bad": 1 - labels, "good": labels}
        return {
            name: Term(masked_sum(part, counted), masked_sum(share.to(part.dtype), counted), 0.5)
            for part, (name, share) in zip(parts, shares.items(), strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs whose answers are annotated, all or some of them."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Single annotated answers."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)


TokenWeighting = EveryToken | BalancedTokens
Rows = Pairs | Answers


@dataclass(frozen=True, kw_only=True)
@checked
class SpanLabels(SpanLoss):
    """Hyper-parameters of learning from spans."""

    head_kind: ClassVar[tuple[type, ...]] = (Token, Gaussian)
    token_columns: ClassVar[tuple[str, ...]] = ("labels",)
    results: ClassVar[Mapping[str, bool]] = {"eval_token_nll": False, "eval_token_auroc": True, "eval_token_auroc_within": True}
    """Held-out results that show which of two models is better; True: higher is better."""

    rows: Rows = field(default_factory=Pairs)
    """pairs, or answers (single ones)."""
    pair_weight: NonNegativeFloat = 1.0
    """Weight of the pair loss beside the token loss; 0: pairs teach nothing, but their answers' spans do."""
    grade: Grade = field(default_factory=Sign)
    """sign, or graded: what the size of a span's value says."""
    meaning: Meaning = field(default_factory=Errors)
    """errors, or merits: what annotators marked, and so what a token in no span is."""
    weighting: TokenWeighting = field(default_factory=EveryToken)
    """every-token, or balanced-tokens."""
    frozen_backbone: bool = False
    """Train the head alone; the model stays as it is."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Sides that take part."""
        return self.rows.roles

    def prepare(self, head: Token | Gaussian, context: AnswerContext) -> Mapping[str, TokenColumns]:
        """Labels of the tokens of annotated answers; raises DataError where training answers teach nothing, or nothing of an aspect."""
        names = aspects_of(head)
        found: dict[str, list[np.ndarray | None]] = {}
        unmarked = self.meaning(np.zeros(1))
        marked, counted = np.zeros(max(1, len(names))), 0
        for role in self.roles:
            values = context.span_values(role, names)
            found[role] = [None if own is None else make_labels(own, self.grade, self.meaning) for own in values]
            for own, labels, mask in zip(values, found[role], context.masks(role), strict=True):
                if own is not None and labels is not None:
                    marked += (labels[mask] != unmarked).sum(0)
                    counted += int(mask.sum())
        answers = [labels for own in found.values() for labels in own]
        annotated = sum(labels is not None for labels in answers)
        facts = {"answers": len(answers), "annotated_answers": annotated, "tokens_of_annotated_answers": counted}
        counts = {f"marked_tokens/{name}" if name else "marked_tokens": int(count) for name, count in zip(names or [""], marked, strict=True)}
        context.note("span_labels", facts | counts)
        if context.trains:
            _check_labels(names, marked, annotated, len(answers), type(self.meaning).__name__.lower())
        return {role: label_columns(labels) for role, labels in found.items()}

    def __call__(self, head: Token | Gaussian, pair: Pair) -> Terms:
        """The token terms of each aspect, and the pair term."""
        terms: Terms = {}
        names = aspects_of(head)
        for role in self.rows.roles:
            parts, labels, counted = token_losses(head, pair, role)
            for place, name in enumerate(names or [""]):
                own = parts[0][..., place], parts[1][..., place]
                for kind, term in self.weighting(own, labels[..., place], counted).items():
                    key = "/".join(filter(None, ("tokens", name, kind)))
                    before = terms.get(key, Term(torch.zeros_like(term.value), torch.zeros_like(term.count)))
                    terms[key] = Term(before.value + term.value, before.count + term.count, term.coefficient / max(1, len(names)))
        if "chosen" in self.rows.roles and self.pair_weight:
            own_labels = pair_labels(pair)
            losses = pair_losses(head, pair, lambda difference: bradley_terry_loss(difference, **own_labels), 0.0)
            terms["pairs"] = Term(losses, torch.ones_like(losses), self.pair_weight)
        return terms

    def measures(self, head: Token | Gaussian, pair: Pair) -> Mapping[str, Float[Tensor, " B"]]:
        """Mean token loss of the annotated answers of each row, nats, over all aspects; NaN without one."""
        total = count = to_widest(torch.zeros_like(pair.columns["row"]))
        for role in self.rows.roles:
            (bad, good), _, counted = token_losses(head, pair, role)
            total = total + to_widest(masked_sum((bad + good).mean(-1), counted))
            count = count + to_widest(counted).sum(1)
        return {"token_nll": torch.where(count > 0, total / count.clamp(min=1), torch.nan)}


def aspects_of(head: Token | Gaussian) -> tuple[str, ...]:
    """The aspects that have an output each; none where one output is for all."""
    return head.aspects if isinstance(head, Token) else ()


def token_losses(head: Token | Gaussian, pair: Pair, role: str) -> tuple[Parts, Float[Tensor, "B T K"], Bool[Tensor, "B T"]]:
    """The loss of each token, nats, the labels, and which tokens count: those of annotated answers."""
    side = pair.sides[role]
    counted = side.mask & (pair.columns[f"annotated/{role}"] > 0.5)[:, None]
    assert side.outputs is not None
    outputs = to_wide(side.outputs)
    found = token_scores(head, outputs, counted)
    scores = torch.stack(list(aspect_scores(head, outputs, counted).values()) or [found.mean], -1)
    if side.labels is None:  # no answer of this role is annotated
        labels = torch.zeros_like(scores)
    else:
        labels = torch.where(counted[..., None], side.labels.to(scores.dtype), 0.0)
    if found.std is None:
        parts = (1 - labels) * softplus(scores), labels * softplus(-scores)
    else:
        surprise = -gaussian_log_density(2 * labels - 1, scores, found.std[..., None].log())
        parts = (1 - labels) * surprise, labels * surprise
    return parts, labels, counted


def _check_labels(names: Sequence[str], marked: np.ndarray, annotated: int, answers: int, meaning: str) -> None:
    """Raises DataError where the training answers have nothing to learn."""
    if not annotated:
        raise DataError(
            f"none of the {answers} training answers is annotated: loss:span-labels learns from the columns chosen_spans and rejected_spans of "
            "pairs, or spans of answers (loss.rows:answers); without spans use loss:bradley-terry"
        )
    missing = [name for name, count in zip(names, marked, strict=bool(names)) if not count]
    if missing:
        raise DataError(f"no token of the training answers is marked with {', '.join(missing)}: --head.aspects names aspects that the spans have")
    if not marked.any():
        other = "merits" if meaning == "errors" else "errors"
        raise DataError(
            f"no token of the {annotated} annotated training answers is marked: with loss.meaning:{meaning} their spans say nothing; "
            f"annotators who marked {'what is good' if other == 'merits' else 'what is bad'} need loss.meaning:{other}"
        )
