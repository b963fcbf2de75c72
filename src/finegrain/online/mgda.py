"""MGDA: the losses of several rewards are weighted so that the sum of their gradients at the policy's output layer is as short as it can be.

    c = argmin over the simplex of |sum_i c_i g_i|^2,  g_i = gradient of L_i at the output layer, over the whole update;  loss = sum_i c_i L_i

Source: Désidéri 2012, https://doi.org/10.1016/j.crma.2012.03.014; Sener and Koltun 2018, https://arxiv.org/abs/1810.04650 (memory).
Deviations: gradients of the output layer stand for those of all parameters, at the cost of one pass without a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.online.mixture import LossMixture
from finegrain.ops.min_norm import min_norm_weights


@dataclass(frozen=True, kw_only=True)
class MGDA:
    """Each reward has its own values, advantages and loss; the weights of the losses are found at every update."""

    normalises: ClassVar[bool] = False

    def mix(self, advantages: Float[Tensor, "B T n"], gram: Float[Tensor, "n n"]) -> LossMixture:
        """The losses and their weights; `gram`: inner products of the losses' gradients."""
        return LossMixture(min_norm_weights(gram).to(advantages), advantages)

    def preview(self, advantages: Float[Tensor, "B T n"]) -> LossMixture:
        """Before any gradient is known, for logs and pages: equal weights."""
        return LossMixture(torch.full_like(advantages[0, 0], 1 / advantages.shape[-1]), advantages)

    def facts(self, gram: Float[Tensor, "n n"], names: Sequence[str]) -> dict[str, Tensor]:
        """The weights, and the least cosine between two of the gradients."""
        weights = min_norm_weights(gram)
        norms = gram.double().diagonal().clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        cosine = gram.double() / norms[:, None] / norms
        return {**{f"mgda/c/{name}": weights[place] for place, name in enumerate(names)}, "mgda/cosine": cosine.min()}
