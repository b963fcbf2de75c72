"""What keeps the policy near its reference: estimators of the KL at each token, in the reward or in the loss, with a fixed or adaptive weight.

    d = log pi(y_t) - log pi_ref(y_t);   k1 = d;   k2 = d^2 / 2;   k3 = exp(-d) - 1 + d;   abs = |d|

On answers of the policy itself the gradient of k1 is 0 in expectation, that of k2 is the gradient of KL(policy || reference), that of k3 the
gradient of KL(reference || policy); the ratio to the policy that sampled times k3 has the gradient of KL(policy || reference) again.
Source: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, eq. 2 and the adaptive weight; estimators as TRL, verl and OpenRLHF run them.
Deviations: no estimator is clipped by default; verl clips k3, and OpenRLHF every one of them, at 10 (`limit`), where the gradient ends too.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from finegrain.errors import UsageError
from finegrain.ops.masked import masked_mean

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]

LARGEST_STEP = 0.2
"""The most by which an adaptive weight's error counts, in parts of the target."""


def _clip(values: Values, limit: float | None) -> Values:
    return values if limit is None else values.clamp(-limit, limit)


@dataclass(frozen=True, kw_only=True)
@checked
class K1:
    """d: unbiased, of either sign; for the reward."""

    limit: PositiveFloat | None = None
    """The estimate is clipped to +- this, nats (OpenRLHF: 10); None: it is not."""

    def __call__(self, logp: Values, ref_logp: Values) -> Values:
        """Nats."""
        return _clip(logp - ref_logp, self.limit)


@dataclass(frozen=True, kw_only=True)
@checked
class K2:
    """d^2 / 2: never negative; in the loss its gradient is that of KL(policy || reference)."""

    limit: PositiveFloat | None = None
    """The estimate is clipped to +- this, nats (OpenRLHF: 10); None: it is not."""

    def __call__(self, logp: Values, ref_logp: Values) -> Values:
        """Nats."""
        return _clip((logp - ref_logp).square() / 2, self.limit)


@dataclass(frozen=True, kw_only=True)
@checked
class K3:
    """exp(-d) - 1 + d: never negative, of low variance."""

    limit: PositiveFloat | None = None
    """The estimate is clipped to +- this, nats (verl and OpenRLHF: 10); None: it is not."""
    ratio_limit: PositiveFloat = 20.0
    """d is clipped to +- this before the exponential (verl)."""

    def __call__(self, logp: Values, ref_logp: Values) -> Values:
        """Nats."""
        difference = (logp - ref_logp).clamp(-self.ratio_limit, self.ratio_limit)
        return _clip((-difference).exp() - 1 + difference, self.limit)


@dataclass(frozen=True, kw_only=True)
@checked
class Abs:
    """|d|."""

    limit: PositiveFloat | None = None
    """The estimate is clipped to +- this, nats (OpenRLHF: 10); None: it is not."""

    def __call__(self, logp: Values, ref_logp: Values) -> Values:
        """Nats."""
        return _clip((logp - ref_logp).abs(), self.limit)


Estimator = K1 | K2 | K3 | Abs


def estimate_kl(estimator: Estimator, logp: Values, ref_logp: Values, mask: Mask) -> Values:
    """The estimate at every token, nats; 0 outside the mask, whatever stands there."""
    return torch.where(mask, estimator(torch.where(mask, logp, 0.0), torch.where(mask, ref_logp, 0.0)), 0.0)


@dataclass(frozen=True, kw_only=True)
class FixedBeta:
    """The weight stays as it is."""

    def __call__(self, beta: float, kl: float, answers: int) -> float:
        """The weight for the next buffer."""
        return beta


@dataclass(frozen=True, kw_only=True)
@checked
class AdaptiveBeta:
    """The weight follows the KL towards its target: beta *= 1 + clip(KL / target - 1, -0.2, 0.2) answers / horizon."""

    target: PositiveFloat = 0.1
    """KL per token that is wanted, nats: the mean over the answers of their means over tokens (number: memory, verl's)."""
    horizon: PositiveInt = 10000
    """Answers after which a weight that is always too small has grown by a factor of about e^0.2."""

    def __call__(self, beta: float, kl: float, answers: int) -> float:
        """The weight for the next buffer; `kl` and `answers` are those of this one."""
        if answers >= self.horizon:
            raise UsageError(
                f"leash.control.horizon {self.horizon} is counted in answers, and a buffer has {answers}: the weight would leap; take several buffers"
            )
        error = min(max(kl / self.target - 1, -LARGEST_STEP), LARGEST_STEP)
        return beta * (1 + error * answers / self.horizon)


BetaControl = FixedBeta | AdaptiveBeta


@dataclass(frozen=True, kw_only=True)
@checked
class InReward:
    """Every token's reward is lowered by beta times the estimate, of the policy that sampled."""

    estimator: Estimator = field(default_factory=K1)
    """How the KL at a token is estimated."""
    beta: NonNegativeFloat = 0.05
    """Weight of the KL, in units of the reward per nat: at the start, where it is adaptive."""
    control: BetaControl = field(default_factory=FixedBeta)
    """How the weight goes on from buffer to buffer."""


@dataclass(frozen=True, kw_only=True)
@checked
class InLoss:
    """The loss has beta times the estimate as a term of its own, of the policy that trains."""

    estimator: Estimator = field(default_factory=K3)
    """How the KL at a token is estimated."""
    beta: NonNegativeFloat = 0.001
    """Weight of the KL: at the start, where it is adaptive (verl's default)."""
    control: BetaControl = field(default_factory=FixedBeta)
    """How the weight goes on from buffer to buffer."""
    corrected: bool = True
    """Whether the estimate is multiplied by the ratio to the policy that sampled (TRL's `use_bias_correction_kl`)."""

    def __post_init__(self) -> None:
        """Stops on the pairing that has no gradient in expectation."""
        if isinstance(self.estimator, K1) and not self.corrected:
            raise UsageError("k1 in the loss has gradient 0 in expectation: take k2 or k3, the corrected form, or the leash in the reward")


@dataclass(frozen=True, kw_only=True)
class Free:
    """No leash: no reference is read."""


Leash = InReward | InLoss | Free


def start_beta(leash: Leash) -> float:
    """The weight before the first buffer; 0 without a leash."""
    return 0.0 if isinstance(leash, Free) else leash.beta


def adapt_beta(leash: Leash, beta: float, old_logp: Values, ref_logp: Values | None, mask: Mask) -> float:
    """The weight for the next buffer."""
    if isinstance(leash, Free) or ref_logp is None or not mask.any():
        return beta
    kl = masked_mean(estimate_kl(leash.estimator, old_logp, ref_logp, mask), mask)[mask.any(-1)].mean()
    return leash.control(beta, float(kl), len(mask))
