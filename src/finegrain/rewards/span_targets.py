"""What annotators' spans say of each token of an answer: a label from 0 (bad) to 1 (good).

Source: ours [OURS]; severities as in MQM: 5, 1 and 0.1 per major, minor
and punctuation error, Freitag et al. 2021, https://arxiv.org/abs/2104.14478.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from finegrain.checked import PositiveFloat, checked

Values = Float[np.ndarray, "..."]


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A marked token is wholly bad, or wholly good, whatever the size of its span's value."""

    def __call__(self, values: Values) -> Values:
        """How far each token is marked, from -1 to 1."""
        return np.asarray(np.sign(values))


@dataclass(frozen=True, kw_only=True)
@checked
class Graded:
    """A marked token is bad or good in proportion to its span's value: minor errors count less."""

    full: PositiveFloat = 1.0
    """Size of the value that counts as wholly bad or wholly good, e.g. 5 for MQM's major errors; larger ones count as this."""

    def __call__(self, values: Values) -> Values:
        """How far each token is marked, from -1 to 1."""
        return np.asarray(np.clip(values / self.full, -1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Annotators marked what is bad: a token in no span of an annotated answer is good, and so is one in a span of a positive value."""

    def __call__(self, marked: Values) -> Values:
        """Labels, from the degree to which tokens are marked; 0 in no span."""
        return np.asarray(1 + np.minimum(marked, 0.0))


@dataclass(frozen=True, kw_only=True)
class Merits:
    """Annotators marked what is good: a token in no span of an annotated answer is bad, and so is one in a span of a negative value."""

    def __call__(self, marked: Values) -> Values:
        """Labels, from the degree to which tokens are marked; 0 in no span."""
        return np.asarray(np.maximum(marked, 0.0))


Grade = Sign | Graded
Meaning = Errors | Merits


def make_labels(values: Float[np.ndarray, "A T K"], grade: Grade, meaning: Meaning) -> Float[np.ndarray, "T K"]:
    """Labels of an annotated answer's tokens, the mean over its annotators, from the values of their spans, NaN in none."""
    return np.asarray(meaning(np.where(np.isnan(values), 0.0, grade(values))).mean(0), dtype=np.float32)
