"""Several ratings of an answer, each read from its last token; the score is their weighted sum.

    r = W h_T;  score = sum_k w_k r_k;  L = 1/K sum_k sum_rows (r_k - y_k)^2 / rows rated on k

Source: the multi-attribute regression of HelpSteer2, https://arxiv.org/abs/2406.08673 (a linear map of the last token's state to the
attributes' ratings under the mean squared error; number: memory).
Deviations: no bias, as in every reward head here, so that the stock classifier can hold the head [choice]; equal weights by default [choice]; a
rating that is NaN is left out of its attribute's mean, and the answer counts for the others [choice]; the data gate drops rows with one before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.errors import DataError, UsageError, unknown_name
from finegrain.ops.precision import to_widest
from finegrain.ops.readout import Last
from finegrain.ops.sequence import to_wide
from finegrain.rewards.heads import Mask, Outputs, Readout
from finegrain.rewards.rating_labels import PREFIX
from finegrain.types import Pair, Scored, Term, Terms

Rows = Float[Tensor, " B"]
HELPSTEER2 = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


@dataclass(frozen=True, kw_only=True)
@checked
class Attributes:
    """A regression head per rated attribute."""

    readout: ClassVar[Readout] = Last()

    names: tuple[str, ...] = HELPSTEER2
    """The rated attributes, a column each; by default HelpSteer2's five."""
    weights: tuple[float, ...] = ()
    """Weight of each in the score, negative ones allowed (verbosity); by default their mean."""

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names) or not all(self.names):
            raise UsageError(f"--head.names must name one or more attributes, each once; got {', '.join(self.names) or 'none'}")
        if self.weights and len(self.weights) != len(self.names):
            raise UsageError(
                f"--head.weights needs one number per attribute, got {len(self.weights)} for {len(self.names)} attributes ({', '.join(self.names)})"
            )
        if self.weights and not any(self.weights):
            raise UsageError("--head.weights are all 0, so every answer would have the score 0")

    @property
    def loss_kind(self) -> type:
        """The loss that fits every attribute."""
        return AttributeRatings

    @property
    def outputs(self) -> int:
        """One output per attribute."""
        return len(self.names)

    def tokens(self, outputs: Outputs) -> Scored:
        """The weighted sum of the ratings; its uncertainty is unknown."""
        values = to_wide(outputs)
        return Scored(values @ torch.tensor(attribute_weights(self), dtype=values.dtype, device=values.device))

    def attributes(self, outputs: Outputs, mask: Mask) -> Mapping[str, Float[Tensor, " B"]]:
        """Each attribute's rating of the answers, by name."""
        return {name: self.readout(outputs[..., place], mask) for place, name in enumerate(self.names)}

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """A label per attribute."""
        return weight


def attribute_weights(head: Attributes) -> tuple[float, ...]:
    """The weights that the score uses."""
    return head.weights or (1 / len(head.names),) * len(head.names)


@dataclass(frozen=True, kw_only=True)
@checked
class AttributeRatings:
    """Learning from several ratings."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    shape: ClassVar[str] = "rated"
    head_kind: ClassVar[type] = Attributes
    results: ClassVar[Mapping[str, bool]] = {"eval_rating_error": False}
    """Held-out results that show which of two models is better; True: higher is better."""

    def row_columns(self, head: Attributes, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rating and median rating of every attribute; an attribute without a column in every row is an error."""
        given = sorted(name.removeprefix(PREFIX) for name in columns if name.startswith(PREFIX))
        made: dict[str, np.ndarray] = {}
        for name in head.names:
            if name not in given:
                there = ", ".join(given) or "none"
                raise UsageError(f"{unknown_name('attribute', name, given)}; --head.names must be ratings that every row has; found: {there}")
            ratings = columns[PREFIX + name].astype(float)
            if np.isinf(ratings).any() or np.isnan(ratings).all():
                raise DataError(f"ratings of {name!r} are infinite, or all are missing")
            made |= {rating_column(name): ratings, median_column(name): np.full(len(ratings), np.nanmedian(ratings))}
        return made

    def __call__(self, head: Attributes, pair: Pair) -> Terms:
        """A term per attribute, a mean over the answers rated on it."""
        terms = {}
        for name, rating in self._ratings(head, pair).items():
            label = pair.columns[rating_column(name)].to(rating.dtype)
            rated = ~label.isnan()
            error = torch.where(rated, rating - torch.where(rated, label, 0.0), 0.0)
            terms[name] = Term(error.square(), rated.to(rating.dtype), 1 / len(head.names))
        return terms

    def _ratings(self, head: Attributes, pair: Pair) -> Mapping[str, Rows]:
        outputs, mask = pair.answer.outputs, pair.answer.mask
        assert outputs is not None
        return head.attributes(torch.where(mask[..., None], outputs, 0.0), mask)

    def measures(self, head: Attributes, pair: Pair) -> Mapping[str, Rows]:
        """Per answer and attribute: error of the predicted rating, and of the median rating, NaN without a rating; their mean."""
        found: dict[str, Rows] = {}
        for name, rating in self._ratings(head, pair).items():
            label = to_widest(pair.columns[rating_column(name)])
            found[f"rating_error/{name}"] = (to_widest(rating) - label).abs()
            found[f"rating_error_of_median/{name}"] = (to_widest(pair.columns[median_column(name)]) - label).abs()
        return {"rating_error": torch.stack([found[f"rating_error/{name}"] for name in head.names]).nanmean(0), **found}


def rating_column(name: str) -> str:
    """Column of an attribute's rating."""
    return f"attribute/{name}"


def median_column(name: str) -> str:
    """Column of its median over the rows."""
    return f"attribute_median/{name}"
