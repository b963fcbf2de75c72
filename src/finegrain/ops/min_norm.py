"""The point of least norm in the convex hull of n vectors, from their inner products (the direction of MGDA).

    min over c >= 0, sum c = 1 of |sum_i c_i g_i|^2 = c G c;   for two: c_1 = (G_22 - G_12) / (G_11 + G_22 - 2 G_12), clipped to [0, 1]

Source: Désidéri 2012 (MGDA), https://doi.org/10.1016/j.crma.2012.03.014; Sener and Koltun 2018, https://arxiv.org/abs/1810.04650, with
Frank-Wolfe steps (memory).
Deviations: a step moves weight from the vector that points most along the sum to the one that does least (pairwise Frank-Wolfe with exact line
search): of two vectors the first step is the closed form, of more the error falls geometrically where the plain steps crawl.
"""

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 10_000
TOLERANCE = 1e-12
"""Of the gap between the two inner products, in parts of the longest vector's squared norm."""


def min_norm_weights(gram: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """The weights c of the vectors, at least 0 and 1 in sum, where their sum is shortest; float64, on the CPU."""
    inner = gram.detach().double().cpu()
    largest = float(inner.diagonal().max())
    weights = torch.zeros(len(inner), dtype=torch.float64)
    weights[int(inner.diagonal().argmin())] = 1.0
    if not largest > 0:
        return weights
    inner = inner / largest
    for _ in range(STEPS):
        along = inner @ weights
        towards, away = int(along.argmin()), int(torch.where(weights > 0, along, -torch.inf).argmax())
        gap = float(along[away] - along[towards])
        if gap <= TOLERANCE:
            break
        curve = float(inner[towards, towards] + inner[away, away] - 2 * inner[towards, away])
        most = float(weights[away])
        step = min(most, gap / curve) if curve > 0 else most
        weights[towards] += step
        weights[away] = most - step
    return weights
