"""Segments against worked numbers, loops and brute force."""

from itertools import pairwise, product
from math import log1p, sqrt

import numpy as np
import pytest
import ruptures
import torch
from ruptures.base import BaseCost
from torch import Tensor

from finegrain.ops import segments

REWARDS = torch.tensor([[0.5, -0.02, 0.3, -1.1, -0.8, -0.9, 0.7, 0.6]], dtype=torch.float64)
ALL = torch.ones(1, 8, dtype=torch.bool)
HOLED = torch.tensor([[False, True, True, True, False, True, True, False, False, True, False]])


def turns(mask: Tensor) -> list[list[int]]:
    found: list[list[int]] = []
    for t, on in enumerate(mask.tolist()):
        if on and t and mask[t - 1]:
            found[-1].append(t)
        elif on:
            found.append([t])
    return found


def test_change_curve_worked() -> None:
    want = torch.tensor([[0, 0.52, 0.32, 1.4, 0.3, 0.1, 1.6, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(segments.change_curve(REWARDS, ALL), want, rtol=0, atol=1e-15)


@pytest.mark.parametrize("window", [1, 2, 3, 20])
def test_change_curve_equals_a_loop(window: int) -> None:
    values, mask = torch.randn(30, 15, dtype=torch.float64), torch.rand(30, 15) < 0.8
    got = segments.change_curve(values.masked_fill(~mask, torch.nan), mask, window)
    want = torch.zeros_like(values)
    for row in range(30):
        for turn in turns(mask[row]):
            for place, t in enumerate(turn):
                if place:
                    before, after = turn[max(0, place - window) : place], turn[place : place + window]
                    want[row, t] = (values[row, after].mean() - values[row, before].mean()).abs()
    torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


def test_ids_never_cross_a_hole_and_the_closing_token_opens_nothing() -> None:
    everywhere = torch.ones_like(HOLED)
    assert segments.segments_from(everywhere, HOLED).tolist() == [[-1, 0, 1, 1, -1, 2, 2, -1, -1, 3, -1]]
    assert segments.segments_from(~everywhere, HOLED).tolist() == [[-1, 0, 0, 0, -1, 1, 1, -1, -1, 2, -1]]
    assert segments.segment_tokens(HOLED).tolist() == [[-1, 0, 1, 2, -1, 3, 4, -1, -1, 5, -1]]
    assert segments.segment_windows(HOLED, 2).tolist() == [[-1, 0, 0, 0, -1, 1, 1, -1, -1, 2, -1]]
    assert segments.segment_windows(torch.ones(1, 8, dtype=torch.bool), 3).tolist() == [[0, 0, 0, 1, 1, 1, 2, 2]]
    assert segments.segment_windows(torch.ones(1, 7, dtype=torch.bool), 3).tolist() == [[0, 0, 0, 1, 1, 1, 1]]
    assert segments.segments_from(everywhere, torch.zeros_like(HOLED)).eq(-1).all()


def test_reductions_worked() -> None:
    ids = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2]])
    mean = segments.segment_mean(REWARDS, ids)
    torch.testing.assert_close(mean[0, [0, 3, 6]], torch.tensor([0.26, -2.8 / 3, 0.65], dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(mean[0, [0, 3, 6]], mean[0, [2, 5, 7]])
    torch.testing.assert_close(segments.segment_sum(REWARDS, ids)[0, ::3], torch.tensor([0.78, -2.8, 1.3], dtype=torch.float64), rtol=0, atol=1e-12)
    assert segments.segment_last(REWARDS, ids)[0].tolist() == [0.3] * 3 + [-0.9] * 3 + [0.6] * 2
    assert segments.segment_length(ids, torch.float64)[0].tolist() == [3.0] * 6 + [2.0] * 2


def test_reductions_ignore_what_is_off_the_mask_and_carry_gradients() -> None:
    ids = torch.tensor([[-1, 0, 0, -1, 1], [-1, -1, -1, -1, -1]])
    values = torch.tensor([[torch.nan, 1.0, 3.0, torch.inf, 5.0]] * 2, dtype=torch.float64, requires_grad=True)
    assert segments.segment_mean(values, ids).tolist() == [[0, 2, 2, 0, 5], [0] * 5]
    assert segments.segment_last(values, ids).tolist() == [[0, 3, 3, 0, 5], [0] * 5]
    (grad,) = torch.autograd.grad(segments.segment_mean(values, ids).square().sum(), values)
    assert grad.tolist() == [[0, 4, 4, 0, 10], [0] * 5]


def test_noise_scale_does_not_see_levels() -> None:
    level = torch.randint(-3, 4, (50, 40)).double().repeat_interleave(10, 1)
    noise = 0.3 * torch.randn(50, 400, dtype=torch.float64)
    mask = torch.ones(50, 400, dtype=torch.bool)
    got = segments.noise_scale(level + noise, mask)
    assert abs(float(got.mean()) - 0.3) < 0.05
    mask[:, 200:] = False
    noisy = level + noise
    torch.testing.assert_close(segments.noise_scale(noisy.masked_fill(~mask, torch.nan), mask), segments.noise_scale(noisy[:, :200], mask[:, :200]))
    assert segments.noise_scale(level[:, :1], mask[:, :1]).eq(0).all()


def test_noise_scale_worked() -> None:
    values = torch.tensor([[0.0, 1.0, 3.0, 6.0]], dtype=torch.float64)
    assert float(segments.noise_scale(values, torch.ones(1, 4, dtype=torch.bool))[0]) == pytest.approx(2 / 0.6744897501960817 / sqrt(2), rel=1e-12)


def partition_cost(values: list[float], borders: list[int], noise: float, level: float, price: float) -> float:
    cost = 0.0
    for start, end in pairwise(borders):
        n, total = end - start, sum(values[start:end])
        cost += log1p(n * level / noise) - total**2 * level / (noise * (noise + n * level)) + price
    return cost


class LevelCost(BaseCost):  # type: ignore[misc]
    """The cost of a segment as ruptures asks for it."""

    model = "level"
    min_size = 1

    def __init__(self, noise: float, level: float) -> None:
        self.noise, self.spread = noise, level

    def fit(self, signal: np.ndarray) -> "LevelCost":
        self.signal, self.values = signal, signal[:, 0].tolist()
        return self

    def error(self, start: int, end: int) -> float:
        return partition_cost(self.values, [start, end], self.noise, self.spread, 0.0)


def test_change_points_equal_brute_force() -> None:
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(1, 8, generator=generator, dtype=torch.float64) + torch.tensor([1.5, 1.5, 1.5, -1.5, -1.5, -1.5, 1.0, 1.0])
        noise, level = torch.rand(2, 1, generator=generator, dtype=torch.float64) + 0.2
        got = segments.change_points(values, ALL, noise, level, 0.7)[0]
        assert bool(got[0])
        cuts = product([False, True], repeat=7)
        borders = min(
            ([0, *[t for t, cut in enumerate(cut_, 1) if cut], 8] for cut_ in cuts),
            key=lambda borders: partition_cost(values[0].tolist(), borders, float(noise), float(level), 0.7),
        )
        assert [*got.nonzero().flatten().tolist(), 8] == borders


def test_change_points_are_those_of_ruptures() -> None:
    """Its exact search over every number of segments, with our cost, on rows longer than brute force reaches."""
    noise, level, price = 0.25, 1.0, 0.7
    generator = np.random.default_rng(0)
    for _ in range(10):
        values = np.repeat(generator.normal(0, 1, 4), [5, 3, 7, 5]) + generator.normal(0, noise**0.5, 20)
        search = ruptures.Dynp(custom_cost=LevelCost(noise, level), min_size=1, jump=1).fit(values[:, None])
        ends = [[20], *(search.predict(n_bkps=count) for count in range(1, 19))]
        best = min(ends, key=lambda found: partition_cost(values.tolist(), [0, *found], noise, level, price))
        one = torch.ones(1, dtype=torch.float64)
        got = segments.change_points(torch.from_numpy(values)[None], torch.ones(1, 20, dtype=torch.bool), noise * one, level * one, price)[0]
        assert [*got.nonzero().flatten().tolist(), 20] == [0, *best]


def test_change_points_cut_at_turns_and_nowhere_else_when_segments_are_dear() -> None:
    values = torch.randn(1, 11, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    starts = segments.change_points(values.masked_fill(~HOLED, torch.nan), HOLED, one, one, 1e6)
    assert starts.equal(segments.turn_starts(HOLED))
    free = segments.change_points(values.masked_fill(~HOLED, torch.nan), HOLED, one * 1e-9, one, 0.0)
    assert free.equal(HOLED)
    assert not segments.change_points(values, torch.zeros_like(HOLED), one, one, 1.0).any()


def test_noise_scale_reads_the_first_difference_too() -> None:
    """Differences 5, 1, 2: median 2, of the last two alone it would be 1."""
    values = torch.tensor([[0.0, 5.0, 6.0, 8.0]], dtype=torch.float64)
    assert float(segments.noise_scale(values, torch.ones(1, 4, dtype=torch.bool))[0]) == pytest.approx(2 / 0.6744897501960817 / sqrt(2), rel=1e-12)
