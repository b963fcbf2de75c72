"""Targets of a rating head: labels as distributions over K classes.

Source: label over-smoothing, https://arxiv.org/abs/2403.00250, authors' code.
Deviations: `OddsTarget` keeps the odds for another K, and neighbours (`OrdinalTarget`) are ours [choice].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from finegrain.checked import PositiveFloat, ShareBelowOne, checked
from finegrain.errors import DataError, UsageError
from finegrain.ops.precision import to_widest

Labels = Int[Tensor, " B"]
Targets = Float[Tensor, "B K"]


def to_smoothing(odds: float, classes: int) -> float:
    """The smoothing at which the true class is `odds` times as likely as each other class: K / (K + odds - 1)."""
    if not odds > 1 or classes < 2:
        raise UsageError(f"odds of the true class must exceed 1 over at least 2 classes, got {odds} over {classes}")
    return classes / (classes + odds - 1)


@dataclass(frozen=True, kw_only=True)
class OneHot:
    """All on the label: ordinary cross-entropy."""

    def __call__(self, labels: Labels, classes: int) -> Targets:
        """Distributions over the classes."""
        _check_labels(labels, classes)
        return to_widest(one_hot(labels.long(), classes))


@dataclass(frozen=True, kw_only=True)
@checked
class SmoothedTarget:
    """1 - d + d/K on the label, d/K on each other class. The authors' d is 0.98 at K = 100; at small K that is far too much, see `OddsTarget`."""

    smoothing: ShareBelowOne = 0.1
    """d in [0, 1): at 1 the label would have no effect. A common label smoothing [choice]."""

    def __call__(self, labels: Labels, classes: int) -> Targets:
        """Distributions over the classes."""
        return (1 - self.smoothing) * OneHot()(labels, classes) + self.smoothing / classes


@dataclass(frozen=True, kw_only=True)
@checked
class OddsTarget:
    """Smoothing that keeps the odds of the true class for any K: the difference of the optimal logits is their log."""

    odds: float = 1 + 100 * 0.02 / 0.98
    """The authors' 0.98 at K = 100."""

    def __post_init__(self) -> None:
        to_smoothing(self.odds, 2)

    def __call__(self, labels: Labels, classes: int) -> Targets:
        """Distributions over the classes."""
        return SmoothedTarget(smoothing=to_smoothing(self.odds, classes))(labels, classes)


@dataclass(frozen=True, kw_only=True)
@checked
class OrdinalTarget:
    """Mass decreases with the distance from the label: exp(-|k - y| / width), so that near misses cost less than far ones [choice]."""

    width: PositiveFloat = 1.0
    """Width in steps of the scale."""

    def __call__(self, labels: Labels, classes: int) -> Targets:
        """Distributions over the classes."""
        _check_labels(labels, classes)
        distance = to_widest(torch.arange(classes, device=labels.device) - labels[:, None]).abs()
        return torch.softmax(-distance / self.width, 1)


@dataclass(frozen=True, kw_only=True)
@checked
class GaussianTarget:
    """HL-Gauss: a normal distribution around the label, integrated over the classes' unit intervals and renormalised [choice]."""

    deviation: PositiveFloat = 0.75
    """Standard deviation in steps of the scale."""

    def __call__(self, labels: Labels, classes: int) -> Targets:
        """Distributions over the classes."""
        _check_labels(labels, classes)
        edges = to_widest(torch.arange(classes + 1, device=labels.device)) - 0.5
        mass = torch.special.ndtr((edges - to_widest(labels[:, None])) / self.deviation).diff(dim=1)
        inside: Targets = mass / mass.sum(1, keepdim=True)
        return inside


Target = OneHot | SmoothedTarget | OddsTarget | OrdinalTarget | GaussianTarget


def _check_labels(labels: Labels, classes: int) -> None:
    if classes < 2 or (len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes):
        raise DataError(f"labels must be in 0 .. {classes - 1} (subtract the lowest rating), got {int(labels.min())} .. {int(labels.max())}")
