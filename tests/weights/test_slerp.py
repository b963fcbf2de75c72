"""slerp: ends at its ends, along the sphere, straight where there is no arc."""

import math

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.weights import blocks
from finegrain.weights.blocks import inner_products
from finegrain.weights.slerp import NEARLY_PARALLEL, Slerp
from tests.weights.tensors import close, numbers, related, same_bits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_ends_at_its_ends_bit_for_bit(dtype: torch.dtype) -> None:
    for first, second in related(2, dtype, seed=1):
        assert same_bits(Slerp(t=0.0)([first, second], None, dtype), first)
        assert same_bits(Slerp(t=1.0)([first, second], None, dtype), second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_model_with_itself_is_the_model_bit_for_bit(dtype: torch.dtype) -> None:
    for first, _ in related(2, dtype):
        assert same_bits(Slerp(t=0.3)([first, first.clone()], None, dtype), first)


def test_quarter_circle() -> None:
    half = math.sqrt(0.5)
    close(Slerp(t=0.5)([numbers(1, 0), numbers(0, 1)], None, torch.float64), [half, half])


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_goes_along_the_sphere(t: float) -> None:
    """Of two tensors of one norm the norm stays, and the angle to the first is the share t of theirs."""
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.nn.functional.normalize(torch.randn(30, generator=generator, dtype=torch.float64), dim=0) * 3 for _ in range(2))
    found = Slerp(t=t)([first.view(5, 6), second.view(5, 6)], None, torch.float64).view(-1)
    assert float(found.norm()) == pytest.approx(3, abs=1e-12)
    angle = lambda one, other: math.acos(float(one @ other) / 9)
    assert angle(first, found) == pytest.approx(t * angle(first, second), abs=1e-9)
    assert angle(found, second) == pytest.approx((1 - t) * angle(first, second), abs=1e-9)


def test_equal_numbers_of_different_tensors_stay_on_the_arc() -> None:
    """An element that both models share is multiplied as all others are: the weights of an arc do not sum to 1."""
    found = Slerp(t=0.5)([numbers(1, 1, 0), numbers(1, 0, 1)], None, torch.float64)
    assert float(found[0]) == pytest.approx(2 * math.sin(math.pi / 6) / math.sin(math.pi / 3), abs=1e-12)


@pytest.mark.parametrize(("second", "wanted"), [((2.0, 0.0), (1.25, 0.0)), ((-1.0, 0.0), (0.5, 0.0)), ((0.0, 0.0), (0.75, 0.0))])
def test_straight_where_there_is_no_arc(second: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    """Parallel, opposite and zero tensors."""
    close(Slerp(t=0.25)([numbers(1, 0), numbers(*second)], None, torch.float64), wanted)


def test_the_threshold_is_mergekits() -> None:
    """On this side of it straight, on the other an arc."""
    at = lambda cosine: (numbers(1, 0), numbers(cosine, math.sqrt(1 - cosine**2)))
    length = lambda pair: float(Slerp(t=0.5)(list(pair), None, torch.float64).norm())
    assert length(at(NEARLY_PARALLEL + 1e-5)) < 1 - 1e-5
    assert length(at(NEARLY_PARALLEL - 1e-5)) == pytest.approx(1, abs=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = torch.randn(7, 5), torch.randn(7, 5)
    whole, cosine = Slerp(t=0.3)([first, second], None, torch.float32), inner_products(first, second).cosine
    monkeypatch.setattr(blocks, "BLOCK", 4)
    torch.testing.assert_close(Slerp(t=0.3)([first, second], None, torch.float32), whole)
    assert inner_products(first, second).cosine == pytest.approx(cosine, abs=1e-12)


def test_refused() -> None:
    with pytest.raises(UsageError, match="from one model to another, got 3"):
        Slerp().check(3, base=False)
    with pytest.raises(UsageError, match="reads no --base"):
        Slerp().check(2, base=True)
    with pytest.raises(UsageError, match=r"t must be .* in \[0, 1\]"):
        Slerp(t=1.2)
    assert Slerp(t=0.5).coefficients(2) is None
    assert Slerp(t=1.0).coefficients(2) == (0.0, 1.0)
