"""Clipped surrogate of PPO under a token mask or weight, a mean per answer (APPO).

Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, eq. 7; token weights as in https://arxiv.org/abs/2411.00809 (APPO).
Deviations: a row whose weights are all 0 is ignored, where the APPO authors' code divides 0 by 0.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.online.aggregate import SeqMeanTokenMean
from finegrain.online.surrogates import Clip
from finegrain.types import Term


def clipped_policy_loss(
    logp: Float[Tensor, "B T"],
    old_logp: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    weight: Float[Tensor, "B T"] | Bool[Tensor, "B T"],
    *,
    clip: float,
) -> Term:
    """-min(ratio A, clip(ratio) A), averaged over the weight of each row, then over the rows with any weight; old_logp is of the sampling policy."""
    live = weight != 0
    found = Clip(low=clip, high=clip)(logp, old_logp, advantages, live)
    return SeqMeanTokenMean()(found.loss, torch.where(live, weight, 0).to(logp.dtype))
