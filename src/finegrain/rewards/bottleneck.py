"""The module behind head:diverse-preferences: hidden state -> stochastic code -> reward, for several members at once.

Source: https://arxiv.org/abs/2301.11774 (equations from memory).
Deviations: the reward is measured from that of the prior's mean code, so that members need no common zero [choice].
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finegrain.ops.variational import LOG_STD, gaussian_kl

LARGEST_MEAN = 5.0
"""Bound of a code's mean, so that an input far from the data cannot be infinitely confident [choice]."""
ACTIVE = 0.01
"""KL, nats, above which a dimension of a code counts as active."""

Weighting = Callable[[Float[Tensor, "E ..."]], Float[Tensor, "E ..."]]
"""Weights of the members, computed from the KL of their codes."""


class Bottleneck(nn.Module):
    """(N, H) -> (N, 3 E + 2): rewards at mean codes, at sampled codes, KL of the codes to N(0, I), share of active dimensions, linear proxy's error.

    The linear proxy is a linear map of the raw hidden state that is fitted to the head's score; it affects neither head nor backbone.
    Codes are sampled only in training mode, from torch's global generator.
    """

    def __init__(self, hidden_size: int, members: int, latent: int, width: int, generator: torch.Generator, weighting: Weighting) -> None:
        super().__init__()
        self.weighting = weighting

        def drawn(*shape: int, fan_in: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) / fan_in**0.5)

        self.encoder = drawn(members, hidden_size, 2 * latent, fan_in=hidden_size)
        self.decoder_in = drawn(members, latent, width, fan_in=latent)
        self.decoder_bias = drawn(members, width, fan_in=latent)
        self.decoder_out = drawn(members, width, fan_in=width)
        self.linear_proxy = nn.Linear(hidden_size, 1, bias=False)
        nn.init.zeros_(self.linear_proxy.weight)

    def forward(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N K"]:
        """The outputs for each hidden state."""
        mean, log_std = self.codes(hidden)
        kl = gaussian_kl(mean, log_std)
        sampled = mean + log_std.exp() * torch.randn_like(mean) if self.training else mean
        rewards = self.decode(mean)
        total = kl.sum(-1)
        error = self.linear_proxy(hidden.detach())[..., 0] - combine_weighted(rewards, self.weighting(total)).detach()
        active = (kl > ACTIVE).to(kl.dtype).mean((0, 2))
        return torch.cat([rewards, self.decode(sampled), total, active[None], error[None]]).movedim(0, -1)

    def codes(self, hidden: Float[Tensor, "N H"]) -> tuple[Float[Tensor, "E N q"], Float[Tensor, "E N q"]]:
        """Mean and log standard deviation of each member's code."""
        whole = nn.functional.layer_norm(hidden, hidden.shape[-1:])
        mean, log_std = (whole @ self.encoder).chunk(2, -1)
        return mean.clamp(-LARGEST_MEAN, LARGEST_MEAN), log_std.clamp(*LOG_STD)

    def decode(self, code: Float[Tensor, "E N q"]) -> Float[Tensor, "E N"]:
        """Reward of a code minus that of the code 0."""
        bias = self.decoder_bias[:, None]
        change = (code @ self.decoder_in + bias).tanh() - bias.tanh()
        rewards: Tensor = (change @ self.decoder_out[..., None])[..., 0]
        return rewards


def combine_weighted(rewards: Float[Tensor, "E ..."], weights: Float[Tensor, "E ..."]) -> Float[Tensor, "..."]:
    """The members' rewards under weights that sum to 1."""
    total: Tensor = (weights * rewards).sum(0)
    return total


def confidence_weights(kl: Float[Tensor, "E ..."]) -> Float[Tensor, "E ..."]:
    """kl / sum of kl over the members, non-negative, summing to 1; equal where every code is the prior's."""
    positive = kl.clamp(min=0.0)
    total = positive.sum(0)
    known = total > 0
    return torch.where(known, positive / torch.where(known, total, 1.0), 1.0 / len(kl))
