"""Contrastive terms of a pair loss: two views of one item should agree. A setting of `loss:secrets-rm`.

Items are a pair's difference of last-token features, or both answers' features. A view leaves features out at random: dropout on
the features [OURS], because training sets the model's own dropout to 0. Other items enter a term as constants of the step [OURS],
so that results do not depend on how the step is split.

Source: Wang et al. 2024, https://arxiv.org/abs/2401.06080, section 3; SwAV: Caron et al. 2020, https://arxiv.org/abs/2006.09882.
Deviations: as above; formulas were read in summary and completed from memory, as were tau, weight and iterations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from finegrain.checked import MOST, NonNegativeFloat, PositiveFloat, PositiveInt, Range, checked
from finegrain.rewards.representation import code_cross_entropy, draw_uniform, last_row, prototype_scores, sinkhorn_codes
from finegrain.types import Gathered, Pair, Side

Items = Literal["difference", "answers"]


@dataclass(frozen=True, kw_only=True)
class NoContrast:
    """No contrastive term."""

    needs: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True, kw_only=True)
@checked
class TwoViews:
    """What both terms have: items, and views of them that leave features out at random."""

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    items: Items = "difference"
    """difference: of the pair's last-token features; answers: those of both."""
    weight: NonNegativeFloat = 1.0
    """Weight of the term; 1 is from memory."""
    dropout: Annotated[float, Range(0.0, 1.0, low_open=True, high_open=True)] = 0.1
    """Share of features that a view leaves out; without any both views are equal."""

    def _view(self, pair: Pair, number: int) -> Float[Tensor, "B n H"]:
        """The items without some of their features, the same whenever a row recurs."""
        found = torch.stack([_features(pair.chosen), _features(pair.rejected)], 1)
        if self.items == "difference":
            found = found[:, :1] - found[:, 1:]
        kept = draw_uniform(self._numbers(pair).flatten(), found.shape[-1], number).view_as(found) >= self.dropout
        return torch.where(kept, found, 0.0) / (1 - self.dropout)

    def _numbers(self, pair: Pair) -> Float[Tensor, "B n"]:
        """A unique number of each item."""
        rows = pair.columns["row"]
        return rows[:, None] if self.items == "difference" else torch.stack([2 * rows, 2 * rows + 1], 1)

    def _same(self, pair: Pair, of_step: Tensor) -> Tensor:
        """(B, n, S): which of the step's items equals which of the pair's."""
        own = self._numbers(pair)
        return own[..., None] == of_step.flatten().to(own.dtype)


@dataclass(frozen=True, kw_only=True)
@checked
class SimCSE(TwoViews):
    """Two views of an item should agree, relative to the views of all other items of the step."""

    temperature: PositiveFloat = 0.05
    """Temperature of the cosines; 0.05 is from memory."""

    def statistics(self, pair: Pair) -> Mapping[str, Gathered]:
        """The second view of every item of the step, and the item's number."""
        return {"views": Gathered(self._view(pair, 1)), "view_items": Gathered(self._numbers(pair))}

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """-log softmax of an item's second view among those of the step, mean over a pair's items."""
        first, second = (normalize(self._view(pair, number), dim=-1) for number in (0, 1))
        others = normalize(pair.statistics["views"].to(first.dtype), dim=-1).flatten(0, 1)
        own = self._same(pair, pair.statistics["view_items"])
        positive = (first * second).sum(-1) / self.temperature
        similarity = torch.where(own, positive[..., None], first @ others.T / self.temperature)
        return (similarity.logsumexp(-1) - positive).mean(-1)


@dataclass(frozen=True, kw_only=True)
@checked
class Swav(TwoViews):
    """Each view predicts the other view's assignment to prototypes, where the step's items use all prototypes equally."""

    prototypes: Annotated[int, Range(2.0, MOST)] = 8
    """K, directions trained beside the model [choice]; a step with fewer items than K cannot fill them."""
    temperature: PositiveFloat = 0.1
    """Temperature of the cosines in the prediction; 0.1 is from memory."""
    code_temperature: PositiveFloat = 0.05
    """Temperature of the cosines in the assignment; 0.05 is from memory."""
    iterations: PositiveInt = 3
    """Sinkhorn iterations; 3 is from memory."""

    def make_modules(self, hidden_size: int, generator: torch.Generator) -> Mapping[str, nn.Module]:
        """The prototypes, in random directions."""
        layer = nn.Linear(hidden_size, self.prototypes, bias=False)
        with torch.no_grad():
            layer.weight.copy_(normalize(torch.randn(self.prototypes, hidden_size, generator=generator), dim=-1))
        return {"prototypes": layer}

    def statistics(self, pair: Pair) -> Mapping[str, Gathered]:
        """Scores of both views of every item of the step, and the item's number."""
        first, second = self._scores(pair)
        return {"scores_0": Gathered(first), "scores_1": Gathered(second), "score_items": Gathered(self._numbers(pair))}

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Cross-entropies of each view against the other's codes, added; mean over a pair's items."""
        first, second = self._scores(pair)
        codes = [
            sinkhorn_codes(pair.statistics[name].flatten(0, 1), temperature=self.code_temperature, iterations=self.iterations).to(first.dtype)
            for name in ("scores_0", "scores_1")
        ]
        own = self._same(pair, pair.statistics["score_items"]).int().argmax(-1)
        losses = code_cross_entropy(codes[0][own], second, self.temperature) + code_cross_entropy(codes[1][own], first, self.temperature)
        return losses.mean(-1)

    def _scores(self, pair: Pair) -> list[Float[Tensor, "B n K"]]:
        weight = pair.modules["prototypes"].weight
        assert isinstance(weight, Tensor)
        return [prototype_scores(found, weight.to(found.dtype)) for found in (self._view(pair, k) for k in (0, 1))]


Contrast = NoContrast | SimCSE | Swav


def _features(side: Side) -> Float[Tensor, "B H"]:
    assert side.features is not None
    return last_row(side.features, side.mask)
