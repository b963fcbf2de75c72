"""f-DPO: DPO under another divergence than reverse KL; the log-ratio r is replaced by f'(e^r).

Source: Wang et al. 2023, https://arxiv.org/abs/2309.16240, eq. 10 and table 1 (number: memory); maps as in TRL 1.16.
Deviations: exponents are capped at 80, for forward KL too (TRL caps alpha's only) [choice].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair

MAX_EXPONENT = 80.0


@dataclass(frozen=True, kw_only=True)
class ReverseKL:
    """f'(e^r) = r up to a constant: plain DPO."""

    def __call__(self, ratio: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The log-ratio itself."""
        return ratio


@dataclass(frozen=True, kw_only=True)
class ForwardKL:
    """f'(e^r) = 1 - e^-r."""

    def __call__(self, ratio: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """1 - e^-r of the log-ratio in nats."""
        return -torch.expm1((-ratio).clamp(max=MAX_EXPONENT))


@dataclass(frozen=True, kw_only=True)
class JensenShannon:
    """f'(e^r) = log 2 + log sigma(r)."""

    def __call__(self, ratio: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """log(2 sigma(r)) of the log-ratio in nats."""
        return logsigmoid(ratio) + torch.log(torch.full_like(ratio, 2.0))


@dataclass(frozen=True, kw_only=True)
@checked
class Alpha:
    """f'(e^r) = (e^((alpha - 1) r) - 1) / (alpha - 1); alpha near 1 is reverse KL, alpha 0 forward KL."""

    alpha: float = 0.5
    """Order of the divergence (TRL's default)."""

    def __call__(self, ratio: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The map of the log-ratio in nats; its limit r at alpha = 1."""
        order = self.alpha - 1
        return torch.expm1((order * ratio).clamp(max=MAX_EXPONENT)) / order if order else ratio


Divergence = ForwardKL | JensenShannon | Alpha | ReverseKL


@dataclass(frozen=True, kw_only=True)
@checked
class FDPO:
    """Hyper-parameters of f-DPO."""

    learning_rate: ClassVar[float] = 1e-6
    """That of DPO, whose gradient every divergence shares at the start of training (Jensen-Shannon half of it)."""

    beta: PositiveFloat = 0.1
    """Strength of the regularisation by the divergence."""
    divergence: Divergence = ForwardKL()
    """The f-divergence that keeps the policy close to the reference."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        margin = self.divergence(log_ratio(pair.chosen)) - self.divergence(log_ratio(pair.rejected))
        return dpo_loss(margin, beta=self.beta)
