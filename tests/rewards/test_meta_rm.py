"""MetaRM's difference of samples and its two-point gradient."""

import math

import pytest
import torch
from torch import Tensor, nn

from finegrain.errors import UsageError
from finegrain.rewards.bradley_terry import bradley_terry_loss
from finegrain.rewards.meta_rm import MetaRM, discrimination, displace


def test_discrimination_by_hand() -> None:
    sigma = lambda x: 1 / (1 + math.exp(-x))
    got = discrimination(torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.float64))
    assert float(got) == pytest.approx(2 / 9 * (sigma(1) + sigma(3) + sigma(2)), rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_bounds(count: int) -> None:
    """All equal: the lower bound, without gradient; far apart: nearly the upper one."""
    equal = torch.zeros(1, count, dtype=torch.float64, requires_grad=True)
    low = discrimination(equal)
    assert float(low.detach()) == pytest.approx((count - 1) / count / 2)
    assert torch.autograd.grad(low.sum(), equal)[0].abs().max() == 0
    far = discrimination(40 * torch.arange(count, dtype=torch.float64)[None])
    assert float(far) == pytest.approx((count - 1) / count)


def linear() -> tuple[nn.Parameter, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    return nn.Parameter(draw(5)), draw(8, 5), draw(3, 4, 5)


def test_the_gradient_is_taken_at_the_raised_point_and_the_parameters_return() -> None:
    weight, pairs, samples = linear()
    before = weight.detach().clone()
    loss = lambda at: bradley_terry_loss(pairs @ at).mean()
    told_apart = lambda at: discrimination(samples @ at).mean()
    rise = torch.autograd.grad(told_apart(weight), weight)[0]
    raised = (before + 0.3 * rise).requires_grad_()
    with displace([weight], [rise], 0.3):
        assert torch.equal(weight, raised)
        (got,) = torch.autograd.grad(loss(weight), weight)
    torch.testing.assert_close(got, torch.autograd.grad(loss(raised), raised)[0], rtol=0, atol=0)
    assert torch.equal(weight.detach(), before)
    assert float(told_apart(raised.detach())) > float(told_apart(before))
    plain = torch.autograd.grad(loss(weight), weight)[0]
    assert not torch.equal(got, plain)
    with displace([weight], [rise], 0.0):
        assert torch.equal(torch.autograd.grad(loss(weight), weight)[0], plain)


def test_parameters_return_after_a_failure() -> None:
    weight, _, _ = linear()
    before = weight.detach().clone()
    with pytest.raises(RuntimeError, match="stop"), displace([weight], [torch.ones(5, dtype=torch.float64)], 0.3):
        raise RuntimeError("stop")
    assert torch.equal(weight.detach(), before)


def test_settings_at_their_bounds_are_taken() -> None:
    assert (MetaRM(eta=0.0).eta, MetaRM(eta=0.5, prompts=1).prompts) == (0.0, 1)


@pytest.mark.parametrize("settings", [{"eta": -0.1}, {"eta": math.nan}, {"eta": math.inf}, {"prompts": 0}])
def test_bad_settings(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="eta"):
        MetaRM(**settings)
