"""R2 of PF-PPO's filters (online/filter_r2.py): worked numbers, where it is undefined, and the order under a reward noisy in the middle."""

import math

import pytest
import torch

from finegrain.online.filter_r2 import FILTERS, best_filter, compare_filters, filter_r2, group_by_reward
from finegrain.online.select import BestWorst


def real(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_worked_numbers() -> None:
    found = filter_r2(real(-1, -0.5, 0.5, 1), real(0, 0.4, 0.3, 1))
    assert (found.slope, found.intercept) == (pytest.approx(0.38), pytest.approx(0.425))
    assert found.r2 == pytest.approx(0.684360, abs=1e-6)
    assert found.groups == 4
    line = filter_r2(real(-1, 0, 0.25, 3), real(-1, 0, 0.25, 3) * 2 + 1)
    assert (line.r2, line.slope, line.intercept) == (pytest.approx(1), pytest.approx(2), pytest.approx(1))


def test_where_it_is_undefined_it_says_why() -> None:
    constant = filter_r2(real(-1, 0, 1), real(0.7, 0.7, 0.7))
    assert (constant.r2, constant.groups) == (None, 3)
    assert "same in all groups" in constant.reason
    assert "two" in filter_r2(real(-1, 1, 1), real(0, 1, 1)).reason
    assert "no answer" in filter_r2(real(math.nan), real(1.0)).reason
    assert best_filter({"constant": constant}) is None


def test_groups_are_means_of_similar_rewards() -> None:
    reward = real(*torch.linspace(-1, 1, 40).tolist())
    assert group_by_reward(reward, torch.ones_like(reward), 10).bincount().tolist() == [4] * 10
    assert len(group_by_reward(real(0, 0, 0, 1), torch.ones(4, dtype=torch.float64), 2).unique()) == 2
    noise = torch.tensor([1.0, -1.0] * 20, dtype=torch.float64)
    assert filter_r2(reward, reward + noise).r2 == pytest.approx(1, abs=1e-9)
    assert filter_r2(reward, reward + noise, groups=40).r2 < 0.5


def test_answers_that_are_not_drawn_and_those_without_a_number_do_not_count() -> None:
    reward, truth = real(-1, -0.5, 0.5, 1, 9, math.nan, 3), real(0, 0.4, 0.3, 1, -50, 1, math.nan)
    weight = real(2, 2, 2, 2, 0, 2, 2)
    assert filter_r2(reward, truth, weight) == filter_r2(reward[:4], truth[:4])


def test_weights_are_repetitions() -> None:
    generator = torch.Generator().manual_seed(0)
    reward, truth = (torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(2))
    counts = torch.tensor([1, 3, 2, 1, 1, 4, 2, 1, 1, 2, 3, 1])
    repeated = filter_r2(reward.repeat_interleave(counts), truth.repeat_interleave(counts), groups=4)
    weighed = filter_r2(reward, truth, counts.double(), groups=4)
    assert weighed.r2 == pytest.approx(repeated.r2)
    assert weighed.slope == pytest.approx(repeated.slope)


def test_no_gradient_and_a_reward_that_points_the_wrong_way_is_not_chosen() -> None:
    reward = real(-1, -0.5, 0.5, 1).requires_grad_()
    down, up = filter_r2(reward.detach(), -reward.detach()), filter_r2(reward.detach(), real(0, 0.4, 0.3, 1))
    assert down.r2 == pytest.approx(1)
    assert best_filter({"down": down, "up": up}) == "up"


def noisy_in_the_middle(seed: int, noise: float, even: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """True scores of 5 answers to each of 300 prompts, and a reward that says nothing of them where it is small."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(1500, generator=generator, dtype=torch.float64)
    reward = (0.5 * draw()).clamp(-1, 1)
    spread = torch.full_like(reward, noise) if even else torch.where(reward.abs() < 0.3, noise, 0.1)
    return reward, torch.sin(reward) + spread * draw(), torch.arange(1500) // 5


def test_filters_that_avoid_the_noisy_middle_have_the_larger_number() -> None:
    found = []
    for seed in range(3):
        reward, truth, group = noisy_in_the_middle(seed, 2.0)
        fits = compare_filters(FILTERS, reward, truth, group, torch.ones_like(group).bool())
        found.append({name: fit.r2 for name, fit in fits.items()})
        assert best_filter(fits) == max(found[-1], key=found[-1].__getitem__)
    mean = {name: sum(one[name] for one in found) / 3 for name in FILTERS}
    assert mean["best-worst"] > mean["none"]
    assert mean["power-3"] > mean["none"]
    assert FILTERS["best-worst"] == BestWorst()
