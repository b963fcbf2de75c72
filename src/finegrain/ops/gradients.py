"""How the gradients of two answers' log-probabilities lie to each other: inner product, norms, cosine, token by token too.

Source: Yuan et al. 2024, https://arxiv.org/abs/2410.13828, section 3 (number: memory).
Deviations: the condition ratio divides by the smaller of both squared norms; the authors' column takes the chosen answer's twice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.ops.sequence import to_wide, token_weight
from finegrain.types import Side

Gradient = Sequence[Tensor]
"""One tensor per parameter, in a fixed order."""
TINY = 1e-30


class GradientPair(NamedTuple):
    """The gradients g_w and g_l of the chosen and the rejected answer's log-probability by the parameters, as three numbers."""

    inner: float
    """<g_w, g_l>, nats squared per squared unit of the parameters."""
    chosen_norm: float
    rejected_norm: float

    @property
    def cosine(self) -> float:
        """In [-1, 1]; 0 where one of them is 0."""
        return self.inner / max(self.chosen_norm * self.rejected_norm, TINY)

    @property
    def condition_ratio(self) -> float:
        """<g_w, g_l> / min(|g_w|^2, |g_l|^2): a loss that pulls both answers alike raises the one and lowers the other up to 1."""
        return self.inner / max(min(self.chosen_norm, self.rejected_norm) ** 2, TINY)


def dot(first: Gradient, second: Gradient) -> float:
    """Inner product over all parameters, summed in float64."""
    return float(sum(torch.dot(one.flatten(), other.flatten()).double() for one, other in zip(first, second, strict=True)))


def compare_gradients(chosen: Gradient, rejected: Gradient) -> GradientPair:
    """Inner product and norms."""
    return GradientPair(dot(chosen, rejected), dot(chosen, chosen) ** 0.5, dot(rejected, rejected) ** 0.5)


def gradient_of(value: Float[Tensor, ""], parameters: Gradient) -> list[Tensor]:
    """The gradient of a number by every parameter, 0 for those that it does not depend on; its graph can be used again."""
    found = torch.autograd.grad(value, list(parameters), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(parameter) if part is None else part for parameter, part in zip(parameters, found, strict=True)]


def score_slope(slope: Float[Tensor, "B T"], side: Side) -> Float[Tensor, " B"]:
    """The derivative of a loss by sum_t w_t log pi(y_t), of its derivatives by log pi(y_t); 0 for an answer that keeps no token.

    Exact where the loss reads the side through that sum; else the least-squares fit to the tokens' derivatives.
    """
    weight = token_weight(side)
    size = weight.square().sum(-1)
    total = (weight * torch.where(side.mask, to_wide(slope), 0.0)).sum(-1)
    return torch.where(size > 0, total / torch.where(size > 0, size, 1.0), 0.0)


def token_cosines(gram: Float[Tensor, "W L"], chosen_norms: Float[Tensor, " W"], rejected_norms: Float[Tensor, " L"]) -> Float[Tensor, "W L"]:
    """cos(grad log pi(y^w_i), grad log pi(y^l_j)) of their inner products and norms; 0 where a token has no gradient."""
    return gram / (chosen_norms[:, None] * rejected_norms[None, :]).clamp(min=TINY)


def token_gram(
    chosen: Float[Tensor, " W"], rejected: Float[Tensor, " L"], parameters: Gradient, *, most_numbers: int = 2**28
) -> tuple[Float[Tensor, "W L"], Float[Tensor, " W"], Float[Tensor, " L"]]:
    """Inner products of the gradients of every two log-probabilities, and both sides' norms; they sum to the inner product of the answers.

    Keeps the gradients of at most `most_numbers` / parameters chosen tokens at a time and takes the rejected ones anew for each such part.
    """
    part = max(1, most_numbers // max(sum(parameter.numel() for parameter in parameters), 1))
    columns, norms, other_norms = [], [], [0.0] * len(rejected)
    for start in range(0, len(chosen), part):
        rows = torch.stack([_flat(value, parameters) for value in chosen[start : start + part]])
        norms += rows.norm(dim=1).tolist()
        products = []
        for place, value in enumerate(rejected):
            own = _flat(value, parameters)
            other_norms[place] = float(own.norm())
            products.append((rows @ own).double().cpu())
        columns.append(torch.stack(products, 1) if products else rows.new_zeros(len(rows), 0).double().cpu())
    gram = torch.cat(columns) if columns else torch.zeros(0, len(rejected), dtype=torch.float64)
    return gram, torch.tensor(norms, dtype=torch.float64), torch.tensor(other_norms, dtype=torch.float64)


def _flat(value: Float[Tensor, ""], parameters: Gradient) -> Float[Tensor, " P"]:
    return torch.cat([part.flatten() for part in gradient_of(value, parameters)])
