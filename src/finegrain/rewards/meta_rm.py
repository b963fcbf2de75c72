"""MetaRM: gradients of a reward loss at a point where the model separates the policy's own samples better.

    J(theta) = (2 / k^2) sum_{i<j} sigma(|r(x, s_i) - r(x, s_j)|),   theta' = theta + eta grad J(theta)
    theta <- theta - alpha grad L(theta'):  taken at theta', applied to theta (first order)

Source: Dou et al. 2024, https://arxiv.org/abs/2405.00438, and https://arxiv.org/abs/2401.06080, section 4; J's normaliser is from memory.
Deviations: the equations come from a review, not from code. Default eta and the number of prompts per step are ours [choice].
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finegrain.checked import NonNegativeFloat, PositiveInt, checked


@dataclass(frozen=True, kw_only=True)
class NoMeta:
    """Ordinary steps."""


@dataclass(frozen=True, kw_only=True)
@checked
class MetaRM:
    """Gradients at a point where the model separates samples of the current policy better."""

    samples: str = ""
    """Rows {prompt, responses: [answer, answer, ...]} of the current policy, without labels: a file, folder or Hub name."""
    eta: NonNegativeFloat = 0.1
    """Length of the ascent step per unit of J's gradient [choice]; 0 is an ordinary step."""
    prompts: PositiveInt = 4
    """Number of prompts, with their samples, that a step reads [choice]."""


Meta = NoMeta | MetaRM


def discrimination(rewards: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """J of each prompt's k samples, in [(k - 1) / 2k, (k - 1) / k); samples of equal reward have no gradient."""
    count = rewards.shape[-1]
    first, second = torch.triu_indices(count, count, offset=1, device=rewards.device)
    return 2 / count**2 * torch.sigmoid((rewards[:, first] - rewards[:, second]).abs()).sum(-1)


@contextmanager
def displace(parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], eta: float) -> Iterator[None]:
    """Temporarily moves the parameters to theta + eta * direction; afterwards they have their old values, bit for bit."""
    start = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, slope in zip(parameters, direction, strict=True):
                parameter.add_(slope, alpha=eta)
        del direction, slope  # frees the memory of one gradient, which the step needs
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, start, strict=True):
                parameter.copy_(value)
