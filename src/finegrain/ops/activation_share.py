"""How strongly a model's units respond at each token of an answer, in [0, 1]: the token mask that MaPO makes of activations.

Source: SparsePO, Christopoulou et al. 2024, https://arxiv.org/abs/2410.05102; authors' code, HEBO/SparsePO.
Deviations: computed exactly; the authors' mean, deviation and extremes are in float16. Their normalisation to mean 0 and deviation 1 comes
before a shift and a scale to [0, 1], so it changes nothing and is left out. A constant answer gets 1, where theirs divides by 0.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def activation_share(means: Mapping[str, Sequence[Float[Tensor, " T"]]], mask: Bool[Tensor, " T"]) -> Float[Tensor, " T"]:
    """By kind of unit, for every tensor the mean over its features at each token -> mean over kinds of the mean over their tensors; 0 off the mask.

    Each tensor's means are shifted and scaled to [0, 1] over the tokens of the mask.
    """
    kinds = [torch.stack([_to_unit(values, mask) for values in own]).mean(0) for own in means.values()]
    return torch.where(mask, torch.stack(kinds).mean(0), 0.0)


def _to_unit(values: Float[Tensor, " T"], mask: Bool[Tensor, " T"]) -> Float[Tensor, " T"]:
    low, high = values[mask].aminmax()
    return torch.where(high > low, (values - low) / torch.where(high > low, high - low, 1.0), 1.0)
