"""simpo: worked number, equal lengths, and what the average divides by."""

from dataclasses import replace

import torch
from torch.nn.functional import logsigmoid

from finegrain.objectives.simpo import SimPO
from finegrain.types import Pair
from tests.objectives.worked import close, even_side, worked_pair


def test_worked_pair() -> None:
    close(SimPO(beta=2.0, gamma=1.0)(worked_pair()), 0.313261688)


def test_equal_lengths_are_a_scaled_reference_free_margin() -> None:
    pair = Pair(sides={"chosen": even_side(-7, -7, 4), "rejected": even_side(-9.5, -9, 4)})
    close(SimPO(beta=3.0, gamma=0.5)(pair), -logsigmoid(torch.tensor(3.0 / 4 * 2.5 - 0.5, dtype=torch.float64)).item(), tolerance=1e-12)


def test_credit_divides_by_the_kept_weight() -> None:
    pair = worked_pair()
    weight = torch.tensor([[0.0, 1.0, 0.25, 0.0, torch.nan]], dtype=torch.float64)
    credited = replace(pair, sides={**pair.sides, "rejected": replace(pair.rejected, weight=weight)})
    close(SimPO(beta=2.0, gamma=1.0)(credited), 0.313261688)
