"""FIGA: the likelihood of what a revision changed goes up, that of what it replaced goes down where the model still believes in it.

    loss = [ sum over tokens t of the revision of w_t nll_t + sum over tokens of the original of w_t nll_t ] / N
    revision: w = added on inserted or substituted tokens and on its end token, unchanged elsewhere
    original: w = removed on deleted or substituted tokens with nll_t <= gate, 0 elsewhere
    N: tokens of both whose weight is not 0

Source: Guo et al. 2023, https://arxiv.org/abs/2311.04072, and the authors' released code.
Deviations: which of several least edits is taken is rapidfuzz's choice. Where no token has a weight the loss is 0. A column `weight`
of the data weighs rows, the denominator too, where the variant with a scalar per example divides by a plain count; weights by a judge are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from finegrain.checked import NonNegativeFloat, Range, checked
from finegrain.errors import DataError
from finegrain.ops.edits import least_edit
from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import to_wide
from finegrain.types import Pair, Ragged, Side, Term, Terms, TokenColumns, WeightMeaning

NonPositive = Annotated[float, Range(-torch.finfo(torch.float32).max, 0.0)]


@runtime_checkable
class RevisionContext(Protocol):
    """As much as FIGA reads of a run's answers: the run says it."""

    @property
    def trains(self) -> bool:
        """Whether these are the training answers."""

    def token_ids(self, role: str) -> Ragged:
        """Token ids of the answer."""

    def end_tokens(self, role: str) -> Ragged:
        """Boolean: the token that ends the answer."""

    def note(self, name: str, facts: Mapping[str, int]) -> None:
        """Records facts about the answers for the run."""


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """Rows with an original and a corrected answer."""

    shape: ClassVar[str] = "correction"
    revised: ClassVar[str] = "corrected"
    original: ClassVar[str] = "original"


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs whose chosen answer is a revision of the rejected one."""

    shape: ClassVar[str] = "preference"
    revised: ClassVar[str] = "chosen"
    original: ClassVar[str] = "rejected"


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """Tokens whose weight is not 0, as in the paper: fewer as the gate closes, so the revision counts more."""

    def __call__(self, weights: list[Tensor], masks: list[Tensor]) -> Tensor:
        """(B,) counts."""
        return torch.stack([(weight != 0).sum(-1) for weight in weights]).sum(0)


@dataclass(frozen=True, kw_only=True)
class EveryToken:
    """All tokens of both answers that train."""

    def __call__(self, weights: list[Tensor], masks: list[Tensor]) -> Tensor:
        """(B,) counts."""
        return torch.stack([mask.sum(-1) for mask in masks]).sum(0)


@dataclass(frozen=True, kw_only=True)
@checked
class FIGA:
    """Hyper-parameters of FIGA."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    token_columns: ClassVar[tuple[str, ...]] = ("weight",)
    weights: ClassVar[frozenset[WeightMeaning]] = frozenset()
    learning_rate: ClassVar[float] = 1e-5
    """The authors' for a 7B model."""

    rows: Corrections | Pairs = field(default_factory=Corrections)
    """corrections, or pairs."""
    added: NonNegativeFloat = 1.0
    """alpha: weight of what the revision inserted or substituted, and of its end."""
    unchanged: NonNegativeFloat = 0.0
    """gamma: weight of the rest of the revision."""
    removed: NonPositive = -0.5
    """beta: weight of what the revision deleted or substituted in the original; 0 trains on the revision alone."""
    gate: NonNegativeFloat | None = 0.6
    """Nats: a removed token counts while its negative log-likelihood is at most this; none: always, which is unbounded below."""
    denominator: Weighted | EveryToken = field(default_factory=Weighted)
    """weighted, or every-token: what the sum is divided by."""

    @property
    def roles(self) -> tuple[str, str]:
        """The revision and the original."""
        return self.rows.revised, self.rows.original

    @property
    def shape(self) -> str:
        """Of the rows."""
        return self.rows.shape

    @property
    def unbounded(self) -> str:
        """The loss is without its gate."""
        return "without a gate removed tokens are pushed down for ever" if self.gate is None and self.removed else ""

    def prepare(self, context: RevisionContext) -> Mapping[str, TokenColumns]:
        """Weight 1 on changed tokens of both answers and on the revision's end token, 0 on the others; raises DataError where nothing changes."""
        revised, original = self.roles
        edits = [least_edit(*pair) for pair in zip(context.token_ids(original), context.token_ids(revised), strict=True)]
        differ = sum(edit.distance > 0 for edit in edits)
        changed = {name: sum(int(getattr(edit, side).sum()) for edit in edits) for name, side in (("removed", "first"), ("added", "second"))}
        cut = sum(not end.any() for end in context.end_tokens(revised))
        context.note(
            "revisions", {"rows": len(edits), "identical": len(edits) - differ, "cut": cut, **{f"{name}_tokens": n for name, n in changed.items()}}
        )
        if context.trains and not differ:
            raise DataError("every revision has the tokens of its original, so nothing says what to change")
        ends, original_ends = context.end_tokens(revised), context.end_tokens(original)
        masks = {
            original: [edit.first & ~end for edit, end in zip(edits, original_ends, strict=True)],
            revised: [edit.second | end for edit, end in zip(edits, ends, strict=True)],
        }
        return {role: TokenColumns.of(weight=[own.astype(np.float32) for own in found]) for role, found in masks.items()}

    def __call__(self, pair: Pair) -> Terms:
        """The weighted likelihoods of both answers over their common count."""
        revised, original = (pair.sides[role] for role in self.roles)
        weights = [self._revised(revised), self._original(original)]
        losses = [masked_sum(-weight * to_wide(side.logp), side.mask) for weight, side in zip(weights, (revised, original), strict=True)]
        count = self.denominator(weights, [revised.mask, original.mask]).to(losses[0].dtype)
        return {"revision": Term(losses[0] + losses[1], count, late=True)}

    def measures(self, pair: Pair) -> Terms:
        """Share of the removed tokens whose gate is open."""
        side = pair.sides[self.rows.original]
        changed, wide = _changed(side), to_wide(side.logp)
        return {"gate/open": Term((changed & self._is_open(side)).sum(-1).to(wide.dtype), changed.sum(-1).to(wide.dtype))}

    def _revised(self, side: Side) -> Tensor:
        wide = torch.zeros_like(to_wide(side.logp))
        return torch.where(side.mask, torch.where(_changed(side), wide + self.added, wide + self.unchanged), 0.0)

    def _original(self, side: Side) -> Tensor:
        return torch.where(_changed(side) & self._is_open(side), torch.full_like(to_wide(side.logp), self.removed), 0.0)

    def _is_open(self, side: Side) -> Tensor:
        """Tokens that the model still finds likely."""
        return side.mask if self.gate is None else side.mask & (torch.where(side.mask, -to_wide(side.logp).detach(), 0.0) <= self.gate)


def _changed(side: Side) -> Tensor:
    assert side.weight is not None, "changed tokens are columns made before training"
    return side.mask & (torch.where(side.mask, side.weight, 0.0) > 0.5)
