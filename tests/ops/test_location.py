"""The location-aware normaliser and the three ways to spread segment rewards over tokens."""

import math

import numpy as np
import pytest
import torch

from finegrain.errors import DataError, UsageError
from finegrain.ops.location import EndOnly, EvenSplit, LocationNormaliser, Repeat, fit_location
from finegrain.ops.segments import place_in_row

PHI3 = LocationNormaliser(mean_slope=0.7209, std_slope=0.2330, mean_at_end=0.6055, std_at_end=2.6555)
LLAMA_TOKEN = LocationNormaliser(mean_slope=1.7340, std_slope=0.9906, mean_at_end=1.3212, std_at_end=5.4513)


def real(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_worked() -> None:
    assert PHI3.mean(real(0.25)).item() == pytest.approx(-0.39388, abs=1e-5)
    assert PHI3.std(real(0.25)).item() == pytest.approx(2.33249, abs=1e-5)
    assert PHI3.mean(real(1.0)).item() == pytest.approx(0.6055, abs=1e-9)
    assert PHI3.std(real(1.0)).item() == pytest.approx(2.6555, abs=1e-9)


def test_the_logarithm_is_of_the_place_plus_a_ten_billionth() -> None:
    """As in the authors' code: at p = 1e-10 that is log 2e-10."""
    line = LocationNormaliser(mean_slope=2.0, std_slope=-0.5, mean_at_end=1.0, std_at_end=3.0)
    assert line.mean(real(1e-10)).item() == pytest.approx(2 * math.log(2e-10) + 1)
    assert line.std(real(1e-10)).item() == pytest.approx(3 - 0.5 * math.log(2e-10))


def test_flat_lines_are_a_plain_normaliser() -> None:
    plain = LocationNormaliser(mean_slope=0.0, std_slope=0.0, mean_at_end=1.0, std_at_end=2.0)
    assert plain(real(3.0, 3.0, 1.0), real(0.1, 0.7, 1.0)).tolist() == [[1.0, 1.0, 0.0]]


def test_the_floor_keeps_the_sign() -> None:
    """Below p = .00407 the released token-level line is negative: a good first token of a long answer would be punished."""
    place = real(0.004, 0.0001)
    assert (LLAMA_TOKEN.std_slope * place.log() + LLAMA_TOKEN.std_at_end < 0).all()
    assert LLAMA_TOKEN.std(place).tolist() == [pytest.approx([0.54513, 0.54513])]
    assert (LLAMA_TOKEN(LLAMA_TOKEN.mean(place) + 1.0, place) > 0).all()


def test_off_the_segments_nothing_is_said() -> None:
    found = PHI3(real(float("nan"), 1.0), real(0.0, 1.0))
    assert found[0, 0] == 0.0
    assert found.isfinite().all()


def test_the_fit_recovers_planted_lines() -> None:
    """Exact moments at every place: the Huber fit goes through them, an outlying place notwithstanding."""
    places, rewards = [], []
    for p in (0.1, 0.2, 0.25, 0.333, 0.5, 0.667, 0.75, 1.0):
        mean, std = 0.7 * np.log(p) + 0.6, 0.2 * np.log(p) + 2.6
        places += [p + 1e-5, p - 1e-5]
        rewards += [mean - std, mean + std]
    clean = fit_location(np.array(places), np.array(rewards))
    assert clean is not None
    found = [clean.mean_slope, clean.mean_at_end, clean.std_slope, clean.std_at_end]
    assert found == pytest.approx([0.7, 0.6, 0.2, 2.6], abs=1e-3)
    outlier = fit_location(np.array([*places, 0.6, 0.6]), np.array([*rewards, 500.0, 500.0]))
    assert outlier is not None
    assert outlier.mean_at_end == pytest.approx(0.6, abs=0.1), "least squares would be off by tens"


PLACES, HALF_AND_END = np.array([0.5, 0.5, 1.0, 1.0]), np.array([1.0, 1.4, 3.0, 4.0])


def test_a_small_spread_is_fitted_and_none_is_not() -> None:
    """Standard deviations 0.2 at 1/2 and 0.5 at 1; then 0 at both."""
    found = fit_location(PLACES, HALF_AND_END)
    assert found is not None
    assert (found.mean_at_end, found.std_at_end) == (pytest.approx(3.5, abs=1e-3), pytest.approx(0.5, abs=1e-3))
    assert fit_location(PLACES, np.array([1.0, 1.0, 2.0, 2.0])) is None


@pytest.mark.parametrize(("places", "rewards"), [([0.25], [99.0]), ([0.0004, 0.0002, 0.0], [5.0, -7.0, 20.0])])
def test_a_lone_segment_and_places_that_round_to_0_are_left_out(places: list[float], rewards: list[float]) -> None:
    assert fit_location(np.array([*PLACES, *places]), np.array([*HALF_AND_END, *rewards])) == fit_location(PLACES, HALF_AND_END)


def test_places_are_grouped_by_three_decimals() -> None:
    near = np.array([0.5001, 0.4999, 1.0, 1.0])
    assert fit_location(near, HALF_AND_END) == fit_location(PLACES, HALF_AND_END)


def test_too_few_places_fit_nothing() -> None:
    assert fit_location(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])) is None
    assert fit_location(np.array([0.5, 1.0]), np.array([1.0, 2.0])) is None, "one segment has no standard deviation"
    assert fit_location(np.zeros(0), np.zeros(0)) is None
    with pytest.raises(DataError):
        fit_location(np.array([1.0]), np.array([np.nan]))
    with pytest.raises(UsageError):
        LocationNormaliser(mean_slope=0.0, std_slope=0.0, mean_at_end=0.0, std_at_end=0.0)


IDS = torch.tensor([[0, 0, 0, 1, -1], [0, 1, 1, -1, -1]])
REWARDS = torch.tensor([[9.0, 9.0, 3.0, -2.0, 7.0], [4.0, 9.0, 5.0, float("nan"), 1.0]])


def test_spreads() -> None:
    torch.testing.assert_close(EvenSplit()(REWARDS, IDS), torch.tensor([[1.0, 1.0, 1.0, -2.0, 0.0], [4.0, 2.5, 2.5, 0.0, 0.0]]))
    assert Repeat()(REWARDS, IDS).tolist() == [[3.0, 3.0, 3.0, -2.0, 0.0], [4.0, 5.0, 5.0, 0.0, 0.0]]
    assert EndOnly()(REWARDS, IDS).tolist() == [[0.0, 0.0, 3.0, -2.0, 0.0], [4.0, 0.0, 5.0, 0.0, 0.0]]


def test_an_even_split_adds_up_to_the_segments() -> None:
    assert EvenSplit()(REWARDS, IDS).sum(1).tolist() == pytest.approx(EndOnly()(REWARDS, IDS).sum(1).tolist())


def test_p_1_is_the_last_segment() -> None:
    assert place_in_row(IDS)[0].tolist() == [0.5, 0.5, 0.5, 1.0, 0.0]
