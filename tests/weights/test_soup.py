"""soup: the sheet of salsa, as far as it is about weights: worked number, equal models, ends, symmetry, associativity."""

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.weights import blocks
from finegrain.weights.soup import Soup, interpolate
from tests.weights.tensors import close, numbers, related, same_bits

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def test_worked_number() -> None:
    close(Soup(weights=(0.25, 0.75))([numbers(1, 3), numbers(3, -1)], None, torch.float64), [2.5, 0.0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", [(), (0.3, 0.7), (1.0, 3.0), (0.1, 0.2)])
def test_a_model_with_itself_is_the_model_bit_for_bit(dtype: torch.dtype, weights: tuple[float, ...]) -> None:
    for _, model in related(2, dtype):
        assert same_bits(Soup(weights=weights)([model, model.clone()], None, dtype), model)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_are_the_models_bit_for_bit(dtype: torch.dtype) -> None:
    for first, second in related(2, dtype):
        assert same_bits(Soup(weights=(1.0, 0.0))([first, second], None, dtype), first)
        assert same_bits(Soup().at(0.0)([first, second], None, dtype), second)


def test_symmetric_at_one_half() -> None:
    for first, second in related(2):
        assert same_bits(Soup()([first, second], None, torch.float32), Soup()([second, first], None, torch.float32))


def test_averaging_is_associative_with_weights() -> None:
    """A soup of a soup is the soup of all three with the products of the weights."""
    for first, second, third in related(3, torch.float64):
        inner = Soup(weights=(0.4, 0.6))([first, second], None, torch.float64)
        outer = Soup(weights=(0.5, 0.5))([inner, third], None, torch.float64)
        close(Soup(weights=(0.2, 0.3, 0.5))([first, second, third], None, torch.float64), outer)


def test_weights_are_divided_by_their_sum() -> None:
    assert Soup(weights=(1.0, 3.0)).coefficients(2) == (0.25, 0.75)
    assert Soup().coefficients(4) == (0.25,) * 4


def test_float32_arithmetic_on_low_precision() -> None:
    """The mean of many bfloat16 models is rounded once."""
    models = [torch.full((3,), 1 + step / 128, dtype=torch.bfloat16) for step in range(8)]
    wanted = torch.stack([one.float() for one in models]).mean(0).to(torch.bfloat16)
    assert same_bits(Soup()(models, None, torch.bfloat16), wanted)
    assert Soup()(models, None, torch.float32).dtype == torch.float32


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [torch.randn(7, 5) for _ in range(3)]
    whole = Soup()(models, None, torch.float32)
    monkeypatch.setattr(blocks, "BLOCK", 4)
    assert same_bits(Soup()(models, None, torch.float32), whole)
    close(whole, interpolate(models, (1 / 3,) * 3), 1e-6)


def test_refused() -> None:
    with pytest.raises(UsageError, match="at least two"):
        Soup().check(1, base=False)
    with pytest.raises(UsageError, match="3 weights for 2 models"):
        Soup(weights=(1.0, 1.0, 1.0)).check(2, base=False)
    with pytest.raises(UsageError, match="reads no --base"):
        Soup().check(2, base=True)
    with pytest.raises(UsageError, match="all 0"):
        Soup(weights=(0.0, 0.0))
    with pytest.raises(UsageError, match="not finite"):
        Soup(weights=(1e308, 1e308))
    with pytest.raises(UsageError, match="beyond an end lies method:expo"):
        Soup().at(1.5)
