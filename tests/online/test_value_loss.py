"""The loss of a critic: worked number, clip, several values, and the objective of a critic of its own."""

from dataclasses import replace

import pytest
import torch

from finegrain.online.value_loss import ValueLoss, value_losses
from finegrain.train.read_contract import contract_of
from tests.online.sides import MASK, make_side, pair_of, total


def one(value: float) -> torch.Tensor:
    return torch.tensor([[[value]]], dtype=torch.float64)


def test_worked() -> None:
    """V_old .5, V 1.0, return .6, clip .2: the square of .4, halved; the clipped value's is smaller."""
    assert float(value_losses(one(1.0), one(0.6), one(0.5), 0.2)) == pytest.approx(0.08)
    assert float(value_losses(one(0.6), one(0.6), one(0.0), 0.2)) == pytest.approx(0.08)
    assert float(value_losses(one(0.6), one(0.6), one(0.0), None)) == 0
    assert float(value_losses(one(0.6), one(0.6), None, 0.2)) == 0


def test_objective() -> None:
    side = make_side(values=2)
    bare = replace(side, logp=torch.full_like(side.logp, torch.nan), ref_logp=None, entropy=None)
    loss = total(ValueLoss(values=2)(pair_of(bare)))
    want = value_losses(side.values, side.sampled.returns, side.sampled.old_values, 0.2)[MASK].mean()
    torch.testing.assert_close(loss, want)
    (slope,) = torch.autograd.grad(loss, side.values)
    assert slope.isfinite().all()
    assert not slope[~MASK].any()
    unclipped = total(ValueLoss(values=2, clip=None)(pair_of(bare)))
    torch.testing.assert_close(unclipped, ((side.values - side.sampled.returns)[MASK] ** 2).mean() / 2)


def test_contract() -> None:
    contract = contract_of(ValueLoss())
    assert (contract.needs, contract.values, contract.roles, contract.learning_rate) == (frozenset({"sampled"}), 1, ("answer",), 9e-6)


def test_answers_of_a_data_file_are_an_error() -> None:
    side = make_side()
    for broken in (replace(side, sampled=None), replace(side, values=None), replace(side, sampled=side.sampled._replace(returns=None))):
        with pytest.raises(ValueError, match=r"finegrain online|returns"):
            ValueLoss()(pair_of(broken))
