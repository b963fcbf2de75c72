"""Parts of contrastive losses on the features that a reward head reads: views of one answer should agree, other answers should differ.

Source: Wang et al. 2024, https://arxiv.org/abs/2401.06080, section 3 (SimCSE and SwAV on last-token features, or on their difference).
Deviations: the formulas were read in summary and completed from memory (temperature 0.05, 3 Sinkhorn iterations). The terms of training
are in `finegrain.rewards.contrast`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from finegrain.ops.draws import hash_to_uniform


def sinkhorn_codes(scores: Float[Tensor, "B K"], *, temperature: float = 0.05, iterations: int = 3) -> Float[Tensor, "B K"]:
    """Soft assignments of rows to prototypes that use all prototypes equally; no gradient."""
    log_codes = scores.detach() / temperature
    for _ in range(iterations):
        log_codes = log_softmax(log_codes, 0)
        log_codes = log_softmax(log_codes, 1)
    return log_codes.exp()


def prototype_scores(view: Float[Tensor, "... H"], prototypes: Float[Tensor, "K H"]) -> Float[Tensor, "... K"]:
    """Cosines of features and prototypes."""
    return normalize(view, dim=-1) @ normalize(prototypes, dim=-1).T


def code_cross_entropy(codes: Float[Tensor, "... K"], scores: Float[Tensor, "... K"], temperature: float) -> Float[Tensor, "..."]:
    """Cross-entropy of one view's prototype probabilities against the other view's codes."""
    return -(codes * log_softmax(scores / temperature, -1)).sum(-1)


def last_row(features: Float[Tensor, "B T H"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B H"]:
    """Features of the last token where the mask is True, float32 or wider; 0 for a row without any."""
    places = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, places, 0).amax(-1)
    rows = features[torch.arange(len(mask), device=mask.device), last]
    found = torch.where(mask.any(-1, keepdim=True), rows, 0.0)
    return found.to(torch.promote_types(found.dtype, torch.float32))


def draw_uniform(rows: Float[Tensor, " B"], width: int, stream: int) -> Float[Tensor, "B H"]:
    """Numbers in (0, 1) by row number, position and stream, the same for any batching."""
    return hash_to_uniform((rows.long()[:, None] * 2 + stream) * width + torch.arange(width, device=rows.device))
