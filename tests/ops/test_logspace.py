"""log(1 - e^a) and log-odds against high precision, on both sides of the switch, with gradients. Test of ops/logprobs.py."""

import math
from decimal import Decimal, getcontext

import pytest
import torch

from finegrain.ops.logprobs import log1mexp, log_odds

getcontext().prec = 60


def exact_log1mexp(value: float) -> float:
    return float((1 - Decimal(value).exp()).ln())


@pytest.mark.parametrize("value", [-1e-12, -1e-5, -0.3, -math.log(2), -0.7, -5.0, -40.0])
def test_against_sixty_digits(value: float) -> None:
    tensor = torch.tensor(value, dtype=torch.float64)
    assert math.isclose(log1mexp(tensor).item(), exact_log1mexp(value), rel_tol=1e-14)
    assert math.isclose(log_odds(tensor).item(), value - exact_log1mexp(value), rel_tol=1e-12, abs_tol=1e-15)


def test_single_precision_keeps_its_digits() -> None:
    values = torch.tensor([-1e-6, -0.5, -1.0, -20.0])
    want = torch.tensor([exact_log1mexp(value) for value in values.tolist()])
    torch.testing.assert_close(log1mexp(values), want, rtol=3e-7, atol=0)


def test_gradients_are_finite_on_both_branches() -> None:
    values = torch.tensor([-1e-3, -0.6, -0.8, -50.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log1mexp, (values,), eps=1e-9, atol=1e-4, rtol=1e-4)
    (slope,) = torch.autograd.grad(log_odds(torch.tensor([-1e5, -1e-3])).sum() + log_odds(values).sum(), values)
    assert slope.isfinite().all()


def test_certainty_is_capped() -> None:
    assert log_odds(torch.zeros(1)).isfinite().all()
