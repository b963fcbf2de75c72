"""Arithmetic on logarithms of probabilities without cancellation."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

SWITCH = -math.log(2)


def log1mexp(logp: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(1 - e^a) of a < 0, in nats; exact on both sides of -ln 2.

    Source: Maechler 2012, https://cran.r-project.org/web/packages/Rmpfr/vignettes/log1mexp-note.pdf, eq. 7.
    """
    near_one = logp > SWITCH
    switch = torch.full_like(logp, SWITCH)
    near = torch.log(-torch.expm1(torch.where(near_one, logp, switch)))
    far = torch.log1p(-torch.exp(torch.where(near_one, switch, logp)))
    return torch.where(near_one, near, far)


def log_odds(logp: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(p / (1 - p)) of a log-probability, nats; a probability that rounds to 1 counts as 1 - eps of the dtype."""
    capped = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    return capped - log1mexp(capped)
