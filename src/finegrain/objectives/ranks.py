"""The positions of a micro-batch's rows among all rows of the optimiser step."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from finegrain.types import Pair


def find_own_rows(pair: Pair) -> Int[Tensor, " B"]:
    """Index of each row in the gathered statistics; the method gathers the column `position` beside them."""
    same = pair.columns["position"].unsqueeze(-1) == pair.statistics["position"]
    if same.device.type == "cpu":  # another device would have to synchronise in every micro-batch
        assert bool((same.sum(-1) == 1).all()), "every row must be found exactly once among the gathered positions"
    return same.int().argmax(-1)


def ascending_ranks(values: Float[Tensor, " N"], position: Float[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Rank of each value in ascending order, equal values in the order of their positions."""
    by_position = position.argsort()
    order = by_position[values[by_position].argsort(stable=True)]
    return torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
