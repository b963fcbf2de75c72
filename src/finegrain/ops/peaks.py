"""Peaks of a token curve: which positions stand out, without a fixed number of them.

Source: Kamp et al. 2023, "Dynamic Top-k Estimation", https://arxiv.org/abs/2310.05619; rule and edge cases as in the authors' code
(jbkamp/repo-Dynamic-K, get_local_maxima).
Deviations: none in the selection; vectorised over rows, and positions outside the mask are removed before adjacent positions are compared.
"""

from math import ceil

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def order_left(mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Column order that moves the tokens under the mask to the front of their row, in order: values.gather(1, order)."""
    return torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)


def peak_threshold(scores: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], q: float = 0.0) -> Float[Tensor, " B"]:
    """mean - q * std (population) of each row, the minimum height of a peak."""
    length = mask.sum(1).clamp(min=1)
    mean = torch.where(mask, scores, 0.0).sum(1) / length
    spread = torch.where(mask, scores - mean.unsqueeze(1), 0.0).square().sum(1) / length
    return mean - q * spread.sqrt()


def dynamic_topk(scores: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], q: float = 0.0) -> Bool[Tensor, "B T"]:
    """True on the local peaks whose score is at least mean - q * std (population) of their row.

    A run of exactly equal scores is one peak, marked at its lower middle; such a run at either end of a row is not a peak.
    Rows of one token and constant rows have no peak.
    """
    order = order_left(mask)
    length = mask.sum(1, keepdim=True)
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    valid = place < length
    values = torch.where(valid, scores.gather(1, order), 0.0)

    changed = values[:, 1:] != values[:, :-1]
    first = torch.cat([torch.ones_like(mask[:, :1]), changed | ~valid[:, 1:]], 1)
    last = torch.cat([first[:, 1:], torch.ones_like(mask[:, :1])], 1)
    start = torch.where(first, place, 0).cummax(1).values
    end = torch.where(last, place, mask.shape[1]).flip(1).cummin(1).values.flip(1)

    touches_left, touches_right = start == 0, end >= length - 1
    above_left = touches_left | (values > values.gather(1, (start - 1).clamp(min=0)))
    above_right = touches_right | (values > values.gather(1, (end + 1).clamp(max=mask.shape[1] - 1)))
    edge_plateau = (end > start) & (touches_left | touches_right)
    middle = place == start + (end - start) // 2
    high = values >= peak_threshold(values, valid, q).unsqueeze(1)
    peak = valid & high & above_left & above_right & ~edge_plateau & middle & (length > 1)
    return torch.zeros_like(mask).scatter(1, order, peak)


def fixed_topk(scores: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], fraction: float) -> Bool[Tensor, "B T"]:
    """True on the largest scores, a fixed fraction of each row's tokens, rounded up; of equal ones the earlier is taken."""
    ranked = torch.where(mask, scores, -torch.inf)
    rank = torch.argsort(torch.argsort(ranked, dim=1, descending=True, stable=True), dim=1)
    count = torch.tensor([ceil(fraction * int(n) - 1e-9) for n in mask.sum(1)], device=mask.device)
    return mask & (rank < count[:, None])
