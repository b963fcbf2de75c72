"""Contrastive losses on the features that a reward head reads: views of one answer agree, other answers differ.

Source: Wang et al. 2024, https://arxiv.org/abs/2401.06080, section 3 (SimCSE and SwAV on last-token features, or on their difference).
Deviations: the formulas were read in summary and completed from memory (temperature 0.05, 3 Sinkhorn iterations).
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize


def simcse_loss(first: Float[Tensor, "B H"], second: Float[Tensor, "B H"], *, temperature: float = 0.05) -> Float[Tensor, " B"]:
    """-log softmax over the batch of cos(first_i, second_j) / temperature at j = i; 0 for a batch of one."""
    similarity = normalize(first, dim=-1) @ normalize(second, dim=-1).T / temperature
    return cross_entropy(similarity, torch.arange(len(first), device=first.device), reduction="none")


def sinkhorn_codes(scores: Float[Tensor, "B K"], *, temperature: float = 0.05, iterations: int = 3) -> Float[Tensor, "B K"]:
    """Soft assignments of rows to prototypes that use all prototypes alike; no gradient."""
    log_codes = scores.detach() / temperature
    for _ in range(iterations):
        log_codes = log_softmax(log_codes, 0)
        log_codes = log_softmax(log_codes, 1)
    return log_codes.exp()


def swav_loss(
    first: Float[Tensor, "B H"], second: Float[Tensor, "B H"], prototypes: Float[Tensor, "K H"], *, temperature: float = 0.1, iterations: int = 3
) -> Float[Tensor, " B"]:
    """Cross-entropy of each view's prototype probabilities against the other view's codes."""
    directions = normalize(prototypes, dim=-1)
    scores = [normalize(view, dim=-1) @ directions.T for view in (first, second)]
    codes = [sinkhorn_codes(score, iterations=iterations) for score in scores]
    logs = [log_softmax(score / temperature, -1) for score in scores]
    return -(codes[0] * logs[1]).sum(-1) - (codes[1] * logs[0]).sum(-1)
