"""RewardBench 2: best of four, and the Ties score against a loop over its definition."""

import math

import numpy as np
import pytest

from finegrain.errors import DataError
from finegrain.evaluate.rewardbench2 import TiesPrompt, average_subsets, best_of_credit, ties_prompt, ties_score
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.stats import Interval


def test_best_of_credit() -> None:
    worked = [[2.0, 1.0, 0.0, 1.0], [2.0, 2.0, 0.0, 2.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert best_of_credit(worked).tolist() == [1.0, 1 / 3, 0.0, 0.25]
    scores = np.random.default_rng(0).normal(size=(4000, 4))
    assert abs(best_of_credit(scores.tolist()).mean() - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert np.array_equal(best_of_credit(np.exp(scores).tolist()), best_of_credit(scores.tolist()))
    with pytest.raises(DataError, match="prompt 1"):
        best_of_credit([[1.0, 2.0], [1.0]])


def draw(prompts: int, seed: int = 0) -> list[TiesPrompt]:
    """Both versions of some prompts, with more or fewer answers."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(prompts):
        right = int(generator.integers(2, 5))
        rows.append(ties_prompt(f"tied:{number}", right, (generator.normal(size=right + 3) + 2 * (np.arange(right + 3) < right)).tolist()))
        rows.append(ties_prompt(f"ref:{number}", 1, (generator.normal(size=4) + 2 * (np.arange(4) < 1)).tolist()))
    return rows


def loop(rows: list[TiesPrompt]) -> float:
    """The score by its definition."""
    by = {(row.prompt, row.tied): row for row in rows}
    gap = {key: min(row.right) - max(row.wrong) for key, row in by.items()}
    tied, single = ([gap[key] > 0 for key in by if key[1] is kind] for kind in (True, False))
    hits, both, margins = [], [], []
    for name, kind in by:
        if kind and (name, False) in by:
            spread = max(by[name, True].right) - min(by[name, True].right)
            least = min(gap[name, True], gap[name, False])
            hits.append(gap[name, True] > spread)
            both.append(least > spread)
            margins.append(math.tanh(least / spread - 1) if spread else 0.0 if least == 0 else math.copysign(1.0, least))
    mean = lambda values: sum(values) / len(values)
    return 0.3 * mean(tied) + 0.3 * mean(single) + 0.2 * mean(hits) + 0.2 * mean(both) + 0.01 * mean(margins)


def test_equals_the_loop_with_prompts_in_one_version_only() -> None:
    rows = draw(12)
    got = ties_score(rows)
    assert math.isclose(got.score.mean, loop(rows))
    ragged = [row for place, row in enumerate(rows) if place not in (0, 5, 7)]
    assert math.isclose(ties_score(ragged).score.mean, loop(ragged))
    assert got.score.low is not None
    assert got.score.high is not None
    assert got.score.low < got.score.mean < got.score.high


def scored(rows: list[TiesPrompt], change: object) -> list[TiesPrompt]:
    assert callable(change)
    return [TiesPrompt(row.prompt, row.tied, tuple(map(change, row.right)), tuple(map(change, row.wrong))) for row in rows]


def test_only_positive_affine_maps_change_nothing() -> None:
    rows = draw(12)
    want = ties_score(rows)
    np.testing.assert_allclose(ties_score(scored(rows, lambda value: 3 * value - 7))[1:], want[1:], atol=1e-12)
    bent = ties_score(scored(rows, math.exp))
    assert bent[1:3] == want[1:3], "accuracies see the order alone"
    assert bent.clear_gap != want.clear_gap


def test_constant_scorer() -> None:
    got = ties_score(scored(draw(5), lambda value: 0.0))
    assert got[1:] == (0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_perfect_scorer_exceeds_1_and_never_1_01() -> None:
    rows = [row for n in range(3) for row in (ties_prompt(f"tied:{n}", 2, [9.0, 10.0, 0.0]), ties_prompt(f"ref:{n}", 1, [10.0, 0.0]))]
    assert 1 < ties_score(rows).score.mean < 1.01
    flat = [row for n in range(3) for row in (ties_prompt(f"tied:{n}", 2, [9.0, 9.0, 0.0]), ties_prompt(f"ref:{n}", 1, [10.0, 0.0]))]
    assert math.isclose(ties_score(flat).score.mean, 1.01)


def test_mean_of_subsets() -> None:
    got = average_subsets({"Math": Interval(0.4, 0.3, 0.5, 100), "Ties": Interval(0.8, 0.7, 0.9, 50)})
    assert math.isclose(got.mean, 0.6)
    with pytest.raises(DataError, match="got Chat"):
        average_subsets({"Chat": Interval(0.4, 0.3, 0.5, 100)})


@pytest.mark.parametrize(
    ("identifier", "right", "scores", "message"),
    [
        ("other:1", 1, [1.0, 0.0], "ref:3 or tied:3"),
        ("tied", 1, [1.0, 0.0], "ref:3 or tied:3"),
        ("tied:1", 2, [1.0, 0.0], "one wrong"),
        ("ref:1", 0, [1.0, 0.0], "one right"),
        ("ref:1", 1, [1.0, math.nan], "not finite"),
    ],
)
def test_bad_rows(identifier: str, right: int, scores: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ties_prompt(identifier, right, scores)


def test_bad_sets() -> None:
    with pytest.raises(DataError, match="twice"):
        ties_score([*draw(2), draw(1)[0]])
    with pytest.raises(DataError, match="none has both"):
        ties_score(draw(3)[::2])


def test_two_answers_are_enough_and_scores_must_be_finite() -> None:
    assert best_of_credit([[1.0, 0.0], [0.0, 1.0]]).tolist() == [1.0, 0.0]
    with pytest.raises(DataError, match=r"prompt 1 needs at least two answers with finite scores, the right one first, got \[1.0, inf\]"):
        best_of_credit([[1.0, 2.0], [1.0, math.inf]])


def test_a_gap_as_large_as_the_spread_is_not_clear() -> None:
    """Right 3 and 2, wrong 1: gap 1, spread 1; the single version's gap is 2."""
    even = [ties_prompt("tied:0", 2, [3.0, 2.0, 1.0]), ties_prompt("ref:0", 1, [3.0, 1.0])]
    assert ties_score(even)[1:] == (1.0, 1.0, 0.0, 0.0, 0.0)
    wide = [ties_prompt("tied:0", 2, [3.0, 2.0, 0.0]), ties_prompt("ref:0", 1, [3.0, 2.0])]
    assert ties_score(wide)[1:] == (1.0, 1.0, 1.0, 0.0, 0.0)
    short = [ties_prompt("tied:0", 2, [3.0, 1.0, 0.5]), ties_prompt("ref:0", 1, [3.0, 0.0])]
    assert ties_score(short)[1:] == (1.0, 1.0, 0.0, 0.0, pytest.approx(math.tanh(-0.75)))


def test_rows_of_the_ties_subset() -> None:
    assert ties_prompt("tied:7:x", 2, [3.0, 2.0, 1.0]) == TiesPrompt("7:x", True, (3.0, 2.0), (1.0,))
    assert ties_prompt("ref:7", 1, [3.0, 2.0, 1.0]) == TiesPrompt("7", False, (3.0,), (2.0, 1.0))


def test_the_interval_is_over_prompts_of_a_kind() -> None:
    """Prompts that are alike have no spread, however they are drawn; the bootstrap that is given is taken."""
    alike = [row for n in range(4) for row in (ties_prompt(f"tied:{n}", 2, [9.0, 10.0, 0.0]), ties_prompt(f"ref:{n}", 1, [10.0, 0.0]))]
    alone = [ties_prompt("tied:8", 2, [1.0, 1.0, 2.0]), ties_prompt("ref:9", 1, [0.0, 5.0])]
    got = ties_score([*alike, *alone], Bootstrap(resamples=100))
    assert got.score.rows == 6
    assert (got.score.low, got.score.high) == (pytest.approx(got.score.mean), pytest.approx(got.score.mean))
    assert (got.tied_accuracy, got.single_accuracy) == (0.8, 0.8)


def test_the_interval_draws_within_prompts_of_one_version_and_within_those_of_both() -> None:
    """By its definition: strata in the order of those with one right answer alone, with several alone, with both."""
    rows = [row for place, row in enumerate(draw(8)) if place not in (0, 2, 5, 9)]
    names = sorted({row.prompt for row in rows})
    own = [[row for row in rows if row.prompt == name] for name in names]
    strata = np.array([3 if len(versions) == 2 else 2 if versions[0].tied else 1 for versions in own])
    assert np.bincount(strata).tolist() == [0, 2, 2, 4]
    drawn = lambda places: [row._replace(prompt=str(number)) for number, place in enumerate(places) for row in own[place]]
    want = Bootstrap(resamples=100)(lambda places: loop(drawn(places)), strata)
    assert ties_score(rows, Bootstrap(resamples=100)).score == pytest.approx(want)


def test_no_subset_has_no_mean() -> None:
    with pytest.raises(DataError, match="Focus, Ties; got none"):
        average_subsets({})
