"""Verdicts on series by buffer at and around their thresholds."""

import numpy as np
import pytest

from finegrain.diagnose import online

TIME = np.linspace(0, 1, 40)
NOTHING = np.full(40, np.nan)


def test_every_verdict_has_words() -> None:
    names = {value for name, value in vars(online).items() if name.isupper() and isinstance(value, str)}
    assert names == set(online.WORDS)


def test_reward() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 40)
    assert online.assess_reward(TIME + noise) == online.REWARD_RISES
    assert online.assess_reward(noise - TIME) == online.REWARD_FALLS
    assert online.assess_reward(noise) == online.REWARD_STANDS
    assert online.assess_reward(TIME[:9]) == online.TOO_FEW


def test_kl_runs_away_where_it_is_large_and_does_not_slow_down_or_is_not_finite() -> None:
    assert online.assess_kl(3 * TIME**2) == online.RUNS_AWAY
    assert online.assess_kl(0.3 * TIME**2) == online.BOUNDED, "small"
    assert online.assess_kl(2 * (1 - np.exp(-5 * TIME))) == online.BOUNDED, "large, but it slows down"
    assert online.assess_kl(np.append(0.1 * TIME, np.inf)) == online.RUNS_AWAY
    assert online.assess_kl(np.append(0.1 * TIME, np.nan)) == online.RUNS_AWAY
    assert online.assess_kl(TIME[:5]) == online.TOO_FEW


def test_variety_by_entropy_and_by_distinct_texts() -> None:
    none = np.array([])
    assert online.assess_variety(1 - 0.98 * TIME**0.2, none) == online.COLLAPSED
    assert online.assess_variety(np.full(40, 0.02), none) == online.VARIED, "sure from the start"
    assert online.assess_variety(np.where(TIME > 0.3, 0.2, 1.0), none) == online.NARROWS
    assert online.assess_variety(1 - 0.5 * TIME, none) == online.VARIED
    assert online.assess_variety(1 - 0.5 * TIME, np.array([1.0, 0.6, 0.2])) == online.COLLAPSED
    assert online.assess_variety(NOTHING, np.array([0.4, 0.4, 0.4])) == online.VARIED, "short answers that were alike from the start"
    assert online.assess_variety(NOTHING, none) is None
    assert online.assess_variety(TIME[:3], none) == online.TOO_FEW


def test_length() -> None:
    noise = np.random.default_rng(1).normal(0, 0.5, 40)
    assert online.assess_length(20 + 20 * TIME + noise) == online.DRIFTS
    assert online.assess_length(40 - 20 * TIME + noise) == online.DRIFTS
    assert online.assess_length(20 + 4 * TIME + noise) == online.STEADY
    assert online.assess_length(np.random.default_rng(2).lognormal(3, 2, 40)) == online.STEADY, "far apart, but scatter"
    assert online.assess_length(TIME[:3]) == online.TOO_FEW


@pytest.mark.parametrize(("share", "place"), [(0.5, 0), (0.49, 1), (0.1, 1), (0.09, 2), (0.0, 2)])
def test_shares(share: float, place: int) -> None:
    """The last fifth decides, whatever came before; a single buffer is enough."""
    values = np.append(np.zeros(32), np.full(8, share))
    for assess, names in (
        (online.assess_truncation, (online.MOST_CUT, online.SOME_CUT, online.THEY_END)),
        (online.assess_groups, (online.MOST_DEAD, online.SOME_DEAD, online.GROUPS_DIFFER)),
    ):
        assert assess(values) == names[place]
        assert assess(values[-1:]) == names[place]


def test_skips_count_over_the_whole_run() -> None:
    assert online.assess_skips(np.array([0.0, 8, np.nan]), np.array([4.0, 4, 0])) == online.MOST_SKIPPED
    assert online.assess_skips(np.array([0.0, 2]), np.array([8.0, 8])) == online.SOME_SKIPPED
    assert online.assess_skips(np.zeros(3), np.zeros(3)) == online.NONE_SKIPPED


def test_density_needs_a_dense_reward_to_be_erased() -> None:
    assert online.assess_density(np.full(40, 0.001), dense=True) == online.ERASED
    assert online.assess_density(np.full(40, 0.001), dense=False) == online.TERMINAL
    assert online.assess_density(np.full(40, 0.02), dense=True) == online.DENSE


def test_judging() -> None:
    late = np.append(np.ones(30), np.full(10, np.nan))
    assert online.assess_judging(late, NOTHING) == online.NONE_JUDGED
    assert online.assess_judging(np.append(late[4:], np.ones(4)), NOTHING) == online.SOME_UNJUDGED
    assert online.assess_judging(np.ones(40), np.append(np.zeros(39), 1.0)) == online.SOME_UNJUDGED
    assert online.assess_judging(np.ones(40), NOTHING) == online.ALL_JUDGED


def test_value() -> None:
    assert online.assess_value(np.full(40, -3.0)) == online.EXPLAINS_NOTHING
    assert online.assess_value(np.full(40, 0.2)) == online.EXPLAINS_LITTLE
    assert online.assess_value(0.6 * TIME) == online.EXPLAINS
    assert online.assess_value(np.full(5, -3.0)) == online.TOO_FEW


def test_spread_of_members() -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, 30)
    assert online.assess_spread(np.linspace(0.5, 1.5, 30) + noise) == online.COME_APART
    assert online.assess_spread(np.linspace(0.5, 0.8, 30) + noise) == online.TOGETHER
    assert online.assess_spread(np.linspace(1.5, 0.5, 30) + noise) == online.TOGETHER
    assert online.assess_spread(noise[:5]) == online.TOO_FEW
