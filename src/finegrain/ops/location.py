"""Segment rewards normalised by their position in the answer, and distributed over the tokens of their segments.

    p = k / K;  mu(p) = w_mu log p + b_mu;  sd(p) = max(w_sd log p + b_sd, floor b_sd);  normalised = (r - mu(p)) / sd(p)

Source: Yin et al. 2025, https://arxiv.org/abs/2501.02790; Huber fit, rounding and log(p + 1e-10) from the authors' code.
Deviations: sd has a lower bound [OURS]: the authors' line crosses 0 at small p, where rewards change sign and diverge. Positions that only
one segment has give no standard deviation and are left out of the fit [OURS].
"""

from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float

from finegrain.checked import PositiveFloat, Range, checked
from finegrain.errors import DataError
from finegrain.ops.segmenters import Ids, Values
from finegrain.ops.segments import segment_ends, segment_last, segment_length

HUBER = 1.35
"""Residuals, in standard deviations, above which the fit counts them linearly."""
TINY = 1e-10


@dataclass(frozen=True, kw_only=True)
@checked
class LocationNormaliser:
    """Mean and standard deviation of segment rewards as lines in log p."""

    mean_slope: float
    std_slope: float
    mean_at_end: float
    """Mean at p = 1."""
    std_at_end: PositiveFloat
    floor: Annotated[float, Range(0.0, 1.0, low_open=True)] = 0.1
    """Smallest standard deviation, as a share of the one at the end [OURS]."""

    def mean(self, place: Values) -> Values:
        """mu(p)."""
        return self.mean_slope * (place + TINY).log() + self.mean_at_end

    def std(self, place: Values) -> Values:
        """sd(p), floored."""
        return (self.std_slope * (place + TINY).log() + self.std_at_end).clamp(min=self.floor * self.std_at_end)

    def __call__(self, rewards: Values, place: Values) -> Values:
        """Normalised rewards; `place` is p in (0, 1]; values outside the segments are arbitrary."""
        inside = place > 0
        safe = torch.where(inside, place, 1.0)
        return torch.where(inside, (torch.where(inside, rewards, 0.0) - self.mean(safe)) / self.std(safe), 0.0)

    def as_json(self) -> dict[str, float]:
        """JSON for the checkpoint."""
        return asdict(self)


def fit_location(place: Float[np.ndarray, " N"], rewards: Float[np.ndarray, " N"]) -> LocationNormaliser | None:
    """Huber lines in log p through mean and standard deviation at every distinct p (three decimals); None where fewer than two are known."""
    from sklearn.linear_model import HuberRegressor

    if len(place) != len(rewards) or not np.isfinite(rewards).all():
        raise DataError("a normaliser needs one finite reward for the place of every segment")
    rounded = np.round(place, 3)
    groups = [(p, rewards[rounded == p]) for p in np.unique(rounded)]
    known = [(p, own.mean(), own.std()) for p, own in groups if p > 0 and len(own) > 1]
    if len(known) < 2:
        return None
    at, means, stds = np.array(known).T
    log_place = np.log(at + TINY)[:, None]
    lines = [HuberRegressor(epsilon=HUBER, max_iter=1000).fit(log_place, values) for values in (means, stds)]
    (mean_slope, mean_at_end), (std_slope, std_at_end) = [(float(line.coef_[0]), float(line.intercept_)) for line in lines]
    if std_at_end <= 0:
        return None
    return LocationNormaliser(mean_slope=mean_slope, std_slope=std_slope, mean_at_end=mean_at_end, std_at_end=std_at_end)


@dataclass(frozen=True, kw_only=True)
class EvenSplit:
    """Each token gets an equal share: the tokens of a segment add up to its reward."""

    def __call__(self, rewards: Values, ids: Ids) -> Values:
        """(B, T) of rewards at segment ends."""
        return segment_last(rewards, ids) / segment_length(ids, rewards.dtype).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """Each token gets the whole reward of its segment, so long segments count more."""

    def __call__(self, rewards: Values, ids: Ids) -> Values:
        """(B, T) of rewards at segment ends."""
        return segment_last(rewards, ids)


@dataclass(frozen=True, kw_only=True)
class EndOnly:
    """The last token of a segment gets its reward, the other tokens 0."""

    def __call__(self, rewards: Values, ids: Ids) -> Values:
        """(B, T) of rewards at segment ends."""
        return torch.where(segment_ends(ids), rewards, 0.0)


Spread = EvenSplit | Repeat | EndOnly
