"""The belief of a classifier as a reward: log odds of one class against the others, bounded.

    f = logit_k / T - logsumexp of the other logits / T      (one logit: the logit itself, with the other sign for class 0)
    probability sigma(f);   log-probability log sigma(f);   logit: clip((f - mean) / std, -c, c), mean and std of f on reference texts

For the best discriminator of equally many texts of two kinds f = log p_1 - log p_0. Under a leash of weight beta the optimum of this reward is
pi proportional to pi_ref (p_1 / p_0)^(1 / beta), which is p_1 itself where beta is 1 and the reference is p_0.

Source: the reward of https://arxiv.org/abs/2401.15043 is the belief of a discriminator; its exact transform was not obtainable.
Deviations: the three forms, calibration, temperature and the bound c = 3 are ours [OURS].
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeInt, PositiveFloat, checked
from finegrain.errors import DataError, UsageError, unknown_name

Odds = Float[Tensor, " B"]
"""Log odds, nats."""


class OddsScale(NamedTuple):
    """Mean and standard deviation (ddof 1) of log odds on reference texts, at the temperature that they were measured with."""

    mean: float
    std: float
    texts: int


PLAIN = OddsScale(0.0, 1.0, 0)
"""No calibration."""


@dataclass(frozen=True, kw_only=True)
class Probability:
    """Of the class, in (0, 1): saturates, so that good texts differ little."""

    def __call__(self, odds: Odds, scale: OddsScale = PLAIN) -> Odds:
        """One reward per text; the scale does not matter."""
        return odds.sigmoid()


@dataclass(frozen=True, kw_only=True)
class LogProbability:
    """Its logarithm, at most 0."""

    def __call__(self, odds: Odds, scale: OddsScale = PLAIN) -> Odds:
        """One reward per text; the scale does not matter."""
        return torch.nn.functional.logsigmoid(odds)


@dataclass(frozen=True, kw_only=True)
@checked
class Logit:
    """Log odds in standard deviations of the reference texts, bounded."""

    clip: PositiveFloat = 3.0
    """The largest absolute reward."""

    def __call__(self, odds: Odds, scale: OddsScale = PLAIN) -> Odds:
        """One reward per text."""
        return ((odds - scale.mean) / scale.std).clamp(-self.clip, self.clip)


OddsReward = Logit | Probability | LogProbability
Reads = Literal["answer", "prompt-and-answer"]


@dataclass(frozen=True, kw_only=True)
@checked
class ClassReward:
    """What of a classifier's logits is the reward."""

    label: str = ""
    """Name of the class; empty: the last one."""
    form: OddsReward = field(default_factory=Logit)
    temperature: PositiveFloat = 1.0
    """What logits are divided by."""
    reads: Reads = "answer"
    """The answer alone, or the prompt as the first of two texts."""
    mean: float = 0.0
    """Of the log odds on reference texts."""
    std: PositiveFloat = 1.0
    """The same; 1 without calibration."""
    texts: NonNegativeInt = 0
    """How many they were."""

    def place(self, labels: Sequence[str]) -> int:
        """Number of the class; raises UsageError for a name that is none."""
        if not self.label:
            return len(labels) - 1
        if self.label not in labels:
            raise unknown_name("class", self.label, labels)
        return list(labels).index(self.label)

    def odds(self, logits: Float[Tensor, "B K"], labels: Sequence[str], independent: bool) -> Odds:
        """Log odds of the class at the temperature."""
        return class_odds(logits, self.place(labels), temperature=self.temperature, independent=independent)

    def __call__(self, odds: Odds) -> Odds:
        """One reward per text."""
        return self.form(odds, OddsScale(self.mean, self.std, self.texts))


def class_odds(logits: Float[Tensor, "B K"], label: int, *, temperature: float = 1.0, independent: bool = False) -> Odds:
    """Log odds of a class; `independent`: every class has a yes and a no of its own. Of one logit classes are 0 and 1."""
    wide = logits.double() / temperature
    count = wide.shape[-1]
    if not 0 <= label < max(2, count):
        raise UsageError(f"class {label} is none of {max(2, count)}")
    if count == 1:
        return wide[:, 0] if label else -wide[:, 0]
    if independent:
        return wide[:, label]
    others = torch.cat([wide[:, :label], wide[:, label + 1 :]], 1)
    return wide[:, label] - others.logsumexp(1)


def fit_odds(odds: Odds) -> OddsScale:
    """The scale of reference texts; raises DataError where they determine none."""
    values = odds.double().cpu().numpy()
    if len(values) < 2 or not np.isfinite(values).all() or not values.std() > 0:
        raise DataError(f"{len(values)} reference texts give no mean and standard deviation of a classifier: two different ones are needed at least")
    return OddsScale(float(values.mean()), float(values.std(ddof=1)), len(values))


def prefix_differences(rewards: Sequence[float]) -> list[float]:
    """Of the rewards of growing prefixes of a text: the first one, then each less the one before; their sum is the reward of the whole."""
    return [float(value) for value in np.diff(np.asarray(rewards, dtype=np.float64), prepend=0.0)]
