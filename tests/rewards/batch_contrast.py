"""The contrastive terms over a whole batch, as the papers print them: what `rewards.contrast` must give however a step is split."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from finegrain.rewards.representation import code_cross_entropy, prototype_scores, sinkhorn_codes


def simcse_loss(first: Float[Tensor, "B H"], second: Float[Tensor, "B H"], *, temperature: float = 0.05) -> Float[Tensor, " B"]:
    """-log softmax over the batch of cos(first_i, second_j) / temperature at j = i; 0 for a batch of one."""
    similarity = normalize(first, dim=-1) @ normalize(second, dim=-1).T / temperature
    return cross_entropy(similarity, torch.arange(len(first), device=first.device), reduction="none")


def swav_loss(
    first: Float[Tensor, "B H"], second: Float[Tensor, "B H"], prototypes: Float[Tensor, "K H"], *, temperature: float = 0.1, iterations: int = 3
) -> Float[Tensor, " B"]:
    """Cross-entropy of each view's prototype probabilities against the other view's codes, added."""
    scores = [prototype_scores(view, prototypes) for view in (first, second)]
    codes = [sinkhorn_codes(score, iterations=iterations) for score in scores]
    return code_cross_entropy(codes[0], scores[1], temperature) + code_cross_entropy(codes[1], scores[0], temperature)
