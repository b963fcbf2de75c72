"""Standard deviation of scores from the disagreement of a few scorers, shrunk towards the mean over the data.

Source: ours [OURS]; a few scorers estimate one token's variance poorly, so it is averaged with the mean over the data.
Deviations: not from a paper; the weight of that mean is a [choice].
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def shrunk_std(members: Sequence[Float[Tensor, "M _"]], masks: Sequence[Bool[Tensor, " _"]], *, n0: float) -> list[Float[Tensor, " _"]]:
    """Per token sqrt((n0 * pooled + (M - 1) s^2) / (n0 + M - 1)): s^2 the members' sample variance, pooled its mean over all tokens.

    With two members that differ by d, s^2 = d^2 / 2.
    """
    variances = [torch.where(mask, values.var(0, correction=1), 0.0) for values, mask in zip(members, masks, strict=True)]
    pooled = sum(float(variance.sum()) for variance in variances) / max(1, sum(int(mask.sum()) for mask in masks))
    own = [len(values) - 1 for values in members]
    return [((n0 * pooled + freedom * variance) / (n0 + freedom)).sqrt() for freedom, variance in zip(own, variances, strict=True)]
