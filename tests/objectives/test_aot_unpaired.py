"""aot-unpaired: sorted by hand, and exact value and gradient of the sum over micro-batches."""

import math

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.objectives.aot import aot_loss
from finegrain.objectives.aot_unpaired import AOTUnpaired
from finegrain.objectives.dpo import DPO
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair
from tests.laws.drive import step_loss, take, with_statistics
from tests.objectives.worked import close, random_pair, real, scalar_pair, worked_pair


def softplus(z: float) -> float:
    return math.log1p(math.exp(z))


def test_by_hand() -> None:
    pair = scalar_pair((3.0, -1.0, 2.0), (0.5, 1.5, -2.0))
    want = [softplus(-0.1 * (3.0 - 1.5)), softplus(-0.1 * (-1.0 + 2.0)), softplus(-0.1 * (2.0 - 0.5))]
    close(AOTUnpaired()(with_statistics(AOTUnpaired(), pair)), *want, tolerance=1e-12)


def test_one_pair_is_dpo() -> None:
    pair = worked_pair()
    alone = Pair(sides=pair.sides, columns={"position": real(0.0)})
    close(AOTUnpaired()(with_statistics(AOTUnpaired(), alone)), DPO()(pair).item(), tolerance=1e-12)


@pytest.mark.parametrize("cuts", [([0, 1, 2, 3, 4],), ([3, 1], [0], [4, 2])], ids=["whole", "cut"])
def test_value_and_gradient_of_the_sum_are_those_of_the_sorted_loss(cuts: tuple[list[int], ...]) -> None:
    method, pair = AOTUnpaired(beta=0.3, label_smoothing=0.1), random_pair(2)
    sorted_loss = aot_loss(log_ratio(pair.chosen), log_ratio(pair.rejected), beta=0.3, label_smoothing=0.1).mean()
    cut_loss = step_loss(method, [take(pair, torch.tensor(rows)) for rows in cuts])
    torch.testing.assert_close(cut_loss, sorted_loss, rtol=0, atol=1e-12)
    leaves = [pair.chosen.logp, pair.rejected.logp]
    for got, want in zip(torch.autograd.grad(cut_loss, leaves), torch.autograd.grad(sorted_loss, leaves), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_impossible_rates_are_refused() -> None:
    with pytest.raises(UsageError, match="label_smoothing"):
        AOTUnpaired(label_smoothing=-0.1)
