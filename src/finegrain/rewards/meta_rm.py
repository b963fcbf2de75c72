"""MetaRM: gradients of a reward loss where the model already tells the policy's own samples apart.

    J(theta) = (2 / k^2) sum_{i<j} sigma(|r(x, s_i) - r(x, s_j)|),   theta' = theta + eta grad J(theta)
    theta <- theta - alpha grad L(theta'):  taken at theta', applied to theta (first order)

Source: Dou et al. 2024, https://arxiv.org/abs/2405.00438, and https://arxiv.org/abs/2401.06080, section 4; J's normaliser is memory.
Deviations: none known; the equations come from a review, not from code.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def discrimination(rewards: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """J of each prompt's k samples, in [(k - 1) / 2k, (k - 1) / k); samples of equal reward have no gradient."""
    count = rewards.shape[-1]
    first, second = torch.triu_indices(count, count, offset=1, device=rewards.device)
    return 2 / count**2 * torch.sigmoid((rewards[:, first] - rewards[:, second]).abs()).sum(-1)


def meta_gradients(parameters: Sequence[nn.Parameter], discriminate: Callable[[], Tensor], loss: Callable[[], Tensor], *, eta: float) -> list[Tensor]:
    """Gradients of `loss` at theta + eta grad J; the parameters keep their values. eta = 0 gives ordinary gradients."""
    start = [parameter.detach().clone() for parameter in parameters]
    rise = torch.autograd.grad(discriminate(), list(parameters), allow_unused=True)
    try:
        with torch.no_grad():
            for parameter, slope in zip(parameters, rise, strict=True):
                if slope is not None:
                    parameter.add_(slope, alpha=eta)
        found = torch.autograd.grad(loss(), list(parameters), allow_unused=True)
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, start, strict=True):
                parameter.copy_(value)
    return [torch.zeros_like(parameter) if slope is None else slope for parameter, slope in zip(parameters, found, strict=True)]
