"""Token rewards minus a KL penalty for deviating from the reference.

    clip(r_t, -limit, limit) - coefficient (lp_t - lp_ref_t)

Source: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, eq. 2; clipping token by token, before the penalty, as in the authors' code of
https://arxiv.org/abs/2501.02790.
Deviations: none.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Values = Float[Tensor, "B T"]


def subtract_kl_penalty(
    rewards: Values, logp: Values, ref_logp: Values, mask: Bool[Tensor, "B T"], *, coefficient: float, limit: float = float("inf")
) -> Values:
    """Rewards of the tokens minus the penalty (the single-sample estimate of the KL); 0 outside the mask."""
    kl = torch.where(mask, logp, 0.0) - torch.where(mask, ref_logp, 0.0)
    return torch.where(mask, torch.where(mask, rewards, 0.0).clamp(-limit, limit) - coefficient * kl, 0.0)
