"""aot: sorted by hand, as TRL prints it, over micro-batches, with ties."""

import math

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.objectives.aot import AOT, aot_loss, reference_margin
from finegrain.objectives.dpo import DPO
from finegrain.objectives.margins import logp_margin
from finegrain.objectives.ranks import ascending_ranks
from finegrain.types import Pair, Side
from tests.laws.drive import step_loss, take, with_statistics
from tests.objectives.worked import close, random_pair, real, worked_pair


def softplus(z: float) -> float:
    return math.log1p(math.exp(z))


def margin_pair(policy: list[float], reference: list[float]) -> Pair:
    """Pairs whose log-probability margins are given; rejected answers have log-probability 0."""

    def side(logp: list[float], ref: list[float]) -> Side:
        values = real(*logp).unsqueeze(-1)
        return Side(logp=values.requires_grad_(), ref_logp=real(*ref).unsqueeze(-1), mask=torch.ones_like(values, dtype=torch.bool))

    zeros = [0.0] * len(policy)
    columns = {"position": torch.arange(len(policy), dtype=torch.float64)}
    return Pair(sides={"chosen": side(policy, reference), "rejected": side(zeros, zeros)}, columns=columns)


def test_by_hand() -> None:
    pair = margin_pair([3.0, -1.0, 2.0], [0.5, 1.5, -2.0])
    want = [softplus(-0.1 * (3.0 - 1.5)), softplus(-0.1 * (-1.0 + 2.0)), softplus(-0.1 * (2.0 - 0.5))]
    close(AOT()(with_statistics(AOT(), pair)), *want, tolerance=1e-12)


def test_one_pair_is_dpo() -> None:
    pair = worked_pair()
    alone = Pair(sides=pair.sides, columns={"position": real(0.0)})
    close(AOT()(with_statistics(AOT(), alone)), DPO()(pair).item(), tolerance=1e-12)


def test_value_and_gradient_of_the_sum_are_those_of_the_sorted_loss() -> None:
    method, pair = AOT(beta=0.3, label_smoothing=0.1), random_pair(2)
    sorted_loss = aot_loss(logp_margin(pair), reference_margin(pair), beta=0.3, label_smoothing=0.1).mean()
    cut_loss = step_loss(method, [take(pair, torch.tensor(rows)) for rows in ([3, 1], [0], [4, 2])])
    torch.testing.assert_close(cut_loss, sorted_loss, rtol=0, atol=1e-12)
    leaves = [pair.chosen.logp, pair.rejected.logp]
    for got, want in zip(torch.autograd.grad(cut_loss, leaves), torch.autograd.grad(sorted_loss, leaves), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_equal_margins_take_different_ranks() -> None:
    assert ascending_ranks(real(1.0, 0.0, 1.0, 1.0), real(3.0, 0.0, 1.0, 2.0)).tolist() == [3, 0, 1, 2]
    assert ascending_ranks(real(*[1.0] * 60), real(*range(60))).tolist() == list(range(60))
    pair = margin_pair([1.0, 1.0], [0.0, 4.0])
    close(AOT()(with_statistics(AOT(), pair)), softplus(-0.1), softplus(0.3), tolerance=1e-12)


def test_a_row_that_was_not_gathered_is_an_error() -> None:
    pair = with_statistics(AOT(), margin_pair([1.0, 2.0], [0.0, 4.0]))
    stray = Pair(sides=pair.sides, statistics=pair.statistics, columns={"position": real(0.0, 7.0)})
    with pytest.raises(AssertionError, match="exactly once"):
        AOT()(stray)


def test_impossible_rates_are_refused() -> None:
    with pytest.raises(UsageError, match="label_smoothing"):
        AOT(label_smoothing=0.5)


def test_the_batch_loss_believes_the_labels_by_default() -> None:
    close(aot_loss(real(3.0, 1.0), real(0.0, 2.0), beta=0.1), softplus(-0.1), softplus(-0.1), tolerance=1e-12)
