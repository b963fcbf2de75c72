"""Contrastive losses on the features that a reward head reads: views of one answer agree, other answers differ.

Source: Wang et al. 2024, https://arxiv.org/abs/2401.06080, section 3 (SimCSE and SwAV on last-token features, or on their difference).
Deviations: the formulas were read in summary and completed from memory (temperature 0.05, 3 Sinkhorn iterations). `SimCSE` as a term of training:
its views come from dropout on the features [OURS], since the engine sets the model's own to 0, and other pairs' views are constants [OURS].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize

from finegrain.errors import UsageError
from finegrain.types import Gathered, Pair


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


@dataclass(frozen=True, kw_only=True)
class NoContrast:
    """No contrastive term."""


@dataclass(frozen=True, kw_only=True)
class SimCSE:
    """Two views of a pair's difference of last-token features agree, against the views of all other pairs of the step."""

    weight: float = 1.0
    """Of the term; 1 is memory."""
    temperature: float = 0.05
    """Divides cosines; 0.05 is memory."""
    dropout: float = 0.1
    """Share of features that a view leaves out."""

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 < self.dropout < 1):
            raise UsageError(
                f"temperature is positive and dropout lies in (0, 1), got {self.temperature} and {self.dropout}: without it both views coincide"
            )

    def statistics(self, pair: Pair) -> Mapping[str, Gathered]:
        """The second view of every pair of the step, and which row it is of."""
        return {"views": Gathered(self._view(pair, 1)), "view_rows": Gathered(pair.columns["row"])}

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """-log softmax of the own second view among those of the step."""
        first, second = (normalize(self._view(pair, number), dim=-1) for number in (0, 1))
        others = normalize(pair.statistics["views"].to(first.dtype), dim=-1)
        own = pair.columns["row"][:, None] == pair.statistics["view_rows"][None].to(pair.columns["row"].dtype)
        positive = (first * second).sum(-1) / self.temperature
        similarity = torch.where(own, positive[:, None], first @ others.T / self.temperature)
        return similarity.logsumexp(-1) - positive

    def _view(self, pair: Pair, number: int) -> Float[Tensor, "B H"]:
        assert pair.chosen.features is not None
        assert pair.rejected.features is not None
        item = last_row(pair.chosen.features, pair.chosen.mask) - last_row(pair.rejected.features, pair.rejected.mask)
        kept = uniform(pair.columns["row"], item.shape[-1], number) >= self.dropout
        return torch.where(kept, item, 0.0) / (1 - self.dropout)


Contrast = NoContrast | SimCSE


def last_row(features: Float[Tensor, "B T H"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B H"]:
    """Features of the last token where the mask is True, float32 or wider; 0 for a row without any."""
    places = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, places, 0).amax(-1)
    rows = features[torch.arange(len(mask), device=mask.device), last]
    found = torch.where(mask.any(-1, keepdim=True), rows, 0.0)
    return found.to(torch.promote_types(found.dtype, torch.float32))


def uniform(rows: Float[Tensor, " B"], width: int, stream: int) -> Float[Tensor, "B H"]:
    """Numbers in (0, 1) by row number, place and stream, the same however rows are batched."""
    places = (rows.long()[:, None] * 2 + stream) * width + torch.arange(width, device=rows.device)
    mixed = (places + 1) * 0x9E3779B1 & 0xFFFFFFFF  # two rounds of a 32-bit multiplicative hash
    mixed = (mixed ^ (mixed >> 15)) * 0x85EBCA6B & 0xFFFFFFFF
    mixed = (mixed ^ (mixed >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)).double() + 0.5) / 2**32
