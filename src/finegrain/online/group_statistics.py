"""Mean and standard deviation of the answers to one prompt.

Source: GRPO, https://arxiv.org/abs/2402.03300, as verl and TRL run it.
Deviations: none.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.ops.precision import to_widest

Rows = Float[Tensor, " B"]


class GroupStatistics(NamedTuple):
    """Of each answer's group, over its judged answers; 0 for answers that nobody judged."""

    deviation: Rows
    """The answer's own value minus the mean: exactly 0 where all are equal."""
    std: Rows
    """Unbiased; 0 of a single answer."""
    judged: Rows
    """Judged answers of the group."""
    size: Rows
    """Answers of the group, judged or not."""


def group_statistics(values: Rows, group: Int[Tensor, " B"], judged: Bool[Tensor, " B"], weight: Rows | None = None) -> GroupStatistics:
    """Statistics within the groups; a `weight` per answer makes the mean a weighted one. Of a group with one judged answer the mean is its value."""
    index = torch.unique(group, return_inverse=True)[1]
    wide = torch.where(judged, to_widest(values), 0.0)
    least = wide.new_full((len(values),), torch.inf).scatter_reduce(0, index, torch.where(judged, wide, torch.inf), "amin")[index]
    shifted = torch.where(judged, wide - torch.where(judged, least, 0.0), 0.0)  # so that equal values differ from their mean by exactly 0
    share = torch.where(judged, 1.0 if weight is None else to_widest(weight), 0.0).to(wide.dtype)

    def total(rows: Rows) -> Rows:
        return torch.zeros_like(wide).index_add(0, index, rows)[index]

    count, size = total(judged.to(wide.dtype)), total(torch.ones_like(wide))
    deviation = torch.where(judged, shifted - total(share * shifted) / total(share).clamp(min=torch.finfo(wide.dtype).tiny), 0.0)
    centred = torch.where(judged, shifted - total(shifted) / count.clamp(min=1), 0.0)
    std = (total(centred.square()) / (count - 1).clamp(min=1)).sqrt()

    def narrow(rows: Rows) -> Rows:
        return torch.where(judged, rows, 0.0).to(values.dtype)

    return GroupStatistics(narrow(deviation), narrow(std), narrow(count), narrow(size))
