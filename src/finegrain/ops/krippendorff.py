"""Krippendorff's alpha: how far annotators agree beyond chance, 1 for always, 0 for as often as by chance.

Source: K. Krippendorff, Computing Krippendorff's alpha-reliability (2011), https://repository.upenn.edu/asc_papers/43.
Deviations: units have weights (runs of characters that every annotator treats alike are one unit); only nominal and interval differences.

alpha = 1 - observed / expected disagreement. Units with fewer than two annotators are left out, and annotators may differ from unit to unit.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Shaped


@dataclass
class NominalAlpha:
    """Categories that are the same or not."""

    counts: dict[object, float] = field(default_factory=dict)
    """Weight of the values by category."""
    disagreement: float = 0.0

    def add(self, values: Shaped[np.ndarray, "A U"], weights: Float[np.ndarray, " U"]) -> None:
        """Adds units that the same A annotators saw."""
        if len(values) < 2:
            return
        pairs = len(values) - 1
        for category in np.unique(values).tolist():
            own = (values == category).sum(axis=0)
            self.counts[category] = self.counts.get(category, 0.0) + float(weights @ own)
            self.disagreement += float(weights @ (own * (len(values) - own))) / pairs

    def alpha(self) -> float | None:
        """None where there is one category alone, so that chance agrees always."""
        total = sum(self.counts.values())
        expected = total**2 - sum(count**2 for count in self.counts.values())
        return 1 - (total - 1) * self.disagreement / expected if expected > 0 else None


@dataclass
class IntervalAlpha:
    """Numbers, whose disagreement is the square of their difference."""

    total: float = 0.0
    sum: float = 0.0
    squares: float = 0.0
    disagreement: float = 0.0

    def add(self, values: Float[np.ndarray, "A U"], weights: Float[np.ndarray, " U"]) -> None:
        """Adds units that the same A annotators saw."""
        count = len(values)
        if count < 2:
            return
        sums, squares = values.sum(axis=0), np.square(values).sum(axis=0)
        self.total += count * float(weights.sum())
        self.sum += float(weights @ sums)
        self.squares += float(weights @ squares)
        self.disagreement += 2 * float(weights @ (count * squares - sums**2)) / (count - 1)

    def alpha(self) -> float | None:
        """None where all numbers are equal."""
        expected = 2 * (self.total * self.squares - self.sum**2)
        return 1 - (self.total - 1) * self.disagreement / expected if expected > 1e-9 * max(1.0, self.total * self.squares) else None
