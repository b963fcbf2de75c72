"""Bradley-Terry on an answer and a minimal edit of it, where only the edited tokens can explain the preference.

    Rbar = (sum over changed tokens of R_t + sum over unchanged ones of r0(R_t)) / denominator
    L = -log sigma(Rbar(edited) - Rbar(original)) + regulariser * mean over unchanged tokens of R_t^2

Source: https://arxiv.org/abs/2406.02756 (token-level reward model from minimal edits); formulas from memory, unverified.
Deviations: r0 = zero, the denominator of changed tokens, the regulariser and the cap on the share of an edit are our choices [OURS].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import NonNegativeFloat, Range, checked
from finegrain.errors import DataError
from finegrain.ops.edits import least_edit
from finegrain.ops.masked import masked_sum
from finegrain.ops.readout import Mask, Rows, Values
from finegrain.ops.sequence import to_wide
from finegrain.ops.stats import count_below
from finegrain.rewards.columns import AnswerContext, weight_columns
from finegrain.rewards.token import Token
from finegrain.types import Pair, Side, Term, Terms, TokenColumns


@dataclass(frozen=True, kw_only=True)
class Zero:
    """Unchanged tokens count 0 [OURS]: both answers have them."""

    def __call__(self, rewards: Values) -> Values:
        """Their part of the score."""
        return torch.zeros_like(rewards)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """They count like the changed ones: the alignment is not used."""

    def __call__(self, rewards: Values) -> Values:
        """Their part of the score."""
        return rewards


@dataclass(frozen=True, kw_only=True)
class StopGradient:
    """They count, and are not trained."""

    def __call__(self, rewards: Values) -> Values:
        """Their part of the score."""
        return rewards.detach()


@dataclass(frozen=True, kw_only=True)
class PerChanged:
    """The number of changed tokens: a small edit in a long answer keeps its signal [OURS]."""

    def __call__(self, mask: Mask, changed: Mask) -> Int[Tensor, " B"]:
        """Denominators."""
        return changed.sum(1)


@dataclass(frozen=True, kw_only=True)
class PerToken:
    """The number of tokens of the answer, as in the paper (memory)."""

    def __call__(self, mask: Mask, changed: Mask) -> Int[Tensor, " B"]:
        """Denominators."""
        return mask.sum(1)


@dataclass(frozen=True, kw_only=True)
class Total:
    """No denominator."""

    def __call__(self, mask: Mask, changed: Mask) -> Int[Tensor, " B"]:
        """Denominators."""
        return torch.ones_like(mask[:, :1].sum(1))


Unchanged = Zero | Identity | StopGradient
Denominator = PerChanged | PerToken | Total


@dataclass(frozen=True, kw_only=True)
@checked
class FineGrained:
    """Hyper-parameters of learning from edits: chosen is the edited answer, rejected the original."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected")
    head_kind: ClassVar[type] = Token
    token_columns: ClassVar[tuple[str, ...]] = ("weight",)
    proportion_metrics: ClassVar[frozenset[str]] = frozenset({"edits_in_order"})
    results: ClassVar[Mapping[str, bool]] = {"eval_edits_in_order": True, "eval_removed_auroc": True, "eval_added_auroc": True}
    """Held-out results that show which of two models is better; True: higher is better."""

    unchanged: Unchanged = field(default_factory=Zero)
    """zero, identity or stop-gradient."""
    denominator: Denominator = field(default_factory=PerChanged)
    """per-changed, per-token or total."""
    regulariser: NonNegativeFloat = 0.01
    """Weight of the mean square of unchanged tokens' rewards: without it their level is undetermined and drifts."""
    most_changed: Annotated[float, Range(0.0, 1.0, low_open=True)] = 0.5
    """Largest edit that counts, as a share of the longer answer's tokens: a rewrite does not locate the error."""

    def prepare(self, head: Token, context: AnswerContext) -> Mapping[str, TokenColumns]:
        """Weight 1 on changed tokens and 0 on the others; a pair that is not a small edit has none and does not train."""
        edits = [least_edit(*pair) for pair in zip(context.token_ids("rejected"), context.token_ids("chosen"), strict=True)]
        small = [edit.distance <= self.most_changed * max(len(edit.first), len(edit.second)) for edit in edits]
        context.note("edits", {"pairs": len(edits), "rewrites_left_out": len(edits) - sum(small), "identical": sum(e.distance == 0 for e in edits)})
        if context.trains and not any(small):
            raise DataError(
                f"no pair is a small edit: in all {len(edits)} pairs more than {self.most_changed:.0%} of the tokens differ; "
                "expected chosen to be a minimal edit of rejected (--loss.most-changed sets the limit)"
            )
        masks = {"rejected": [edit.first for edit in edits], "chosen": [edit.second for edit in edits]}
        return {role: weight_columns([own.astype(np.float32) for own in changed], small) for role, changed in masks.items()}

    def __call__(self, head: Token, pair: Pair) -> Terms:
        """The pair's loss, and the regulariser, a mean over unchanged tokens."""
        sides = pair.chosen, pair.rejected
        counted = pair.columns.get("annotated/chosen", torch.ones_like(pair.columns["row"])) > 0.5
        chosen, rejected = (self._score(head, side) for side in sides)
        loss = torch.where(counted, -logsigmoid(chosen - rejected), 0.0)
        terms = {"edits": Term(loss, counted.to(loss.dtype))}
        if self.regulariser:
            still = [(side.mask & ~_changed(side) & counted[:, None], _rewards(head, side)) for side in sides]
            squares = torch.stack([masked_sum(rewards.square(), mask) for mask, rewards in still]).sum(0)
            tokens = torch.stack([mask.sum(1) for mask, _ in still]).sum(0).to(squares.dtype)
            terms["unchanged"] = Term(squares, tokens, self.regulariser)
        return terms

    def measures(self, head: Token, pair: Pair) -> Mapping[str, Rows]:
        """Of small edits, NaN elsewhere: whether the changed tokens put the pair in order, and how well scores find them within their answer."""
        counted = pair.columns.get("annotated/chosen", torch.ones_like(pair.columns["row"])) > 0.5
        chosen, rejected = (self._score(head, side) for side in (pair.chosen, pair.rejected))
        edited = counted & (_changed(pair.chosen).any(1) | _changed(pair.rejected).any(1))
        return {
            "edits_in_order": torch.where(edited, (chosen > rejected).to(chosen.dtype), torch.nan),
            "removed_auroc": _area_within(-_rewards(head, pair.rejected), pair.rejected, counted),
            "added_auroc": _area_within(_rewards(head, pair.chosen), pair.chosen, counted),
        }

    def _score(self, head: Token, side: Side) -> Rows:
        """Rbar of each answer; 0 where nothing was changed on its side and unchanged tokens do not count."""
        changed, rewards = _changed(side), _rewards(head, side)
        total = masked_sum(torch.where(changed, rewards, self.unchanged(rewards)), side.mask)
        return total / self.denominator(side.mask, changed).clamp(min=1)


def _changed(side: Side) -> Mask:
    assert side.weight is not None, "changed tokens are columns made before training"
    return side.mask & (torch.where(side.mask, side.weight, 0.0) > 0.5)


def _rewards(head: Token, side: Side) -> Values:
    assert side.outputs is not None
    return to_wide(head.tokens(torch.where(side.mask[..., None], side.outputs, 0.0)).mean)


def _area_within(likely: Values, side: Side, counted: Bool[Tensor, " B"]) -> Rows:
    """By answer, the chance that a changed token stands above an unchanged one, ties counted half; NaN without both kinds."""
    areas = torch.full((len(likely),), torch.nan, dtype=likely.dtype)
    for row, (own, mask, changed) in enumerate(zip(likely, side.mask, _changed(side) & counted[:, None], strict=True)):
        found, others = (own[kind].detach().cpu().numpy() for kind in (changed, mask & ~changed))
        if len(found) and len(others) and counted[row]:
            areas[row] = float(count_below(found, others).mean()) / len(others)
    return areas.to(likely.device)
