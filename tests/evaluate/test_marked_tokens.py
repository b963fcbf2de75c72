"""Marked tokens against scikit-learn, within answers by hand, aspects, calibration, intervals over answers."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from finegrain.evaluate.marked_tokens import MarkedAnswer, describe_marks, measure_marks, read_marks
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.stats import Interval


def answers(count: int = 40, *, ties: bool = True, sign: float = -1.0, seed: int = 0) -> list[MarkedAnswer]:
    """Ragged answers, some unmarked throughout and one of a single token; scores find marks a little; rounded scores tie."""
    rng = np.random.default_rng(seed)
    found = []
    for row in range(count):
        length = 1 if row == 3 else int(rng.integers(2, 30))
        marks = sign * (rng.random(length) < (0.0 if row % 5 == 0 else 0.3))
        scores = rng.normal(size=length) + marks
        found.append(MarkedAnswer(scores=np.round(scores, 1) if ties else scores, marks=marks + 0.0))
    return found


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_pooled_numbers_are_those_of_scikit_learn(ties: bool, sign: float) -> None:
    given = answers(ties=ties, sign=sign)
    found = measure_marks(given)
    marked = np.concatenate([own.marks != 0 for own in given])
    likely = sign * np.concatenate([own.scores for own in given])
    assert found["auroc"].mean == pytest.approx(roc_auc_score(marked, likely), abs=1e-12)
    assert found["average_precision"].mean == pytest.approx(average_precision_score(marked, likely), abs=1e-12)
    places = np.concatenate([np.arange(len(own.scores)) / max(1, len(own.scores) - 1) for own in given])
    assert found["auroc_place"].mean == pytest.approx(roc_auc_score(marked, places), abs=1e-12)
    assert found["marked"].mean == pytest.approx(marked.mean())
    within = [roc_auc_score(own.marks != 0, sign * own.scores) for own in given if len({*(own.marks != 0)}) == 2]
    assert found["auroc_within"].mean == pytest.approx(np.mean(within), abs=1e-12)
    assert found["auroc_within"].rows == len(within)
    assert found["auroc"].low is None


def test_intervals_draw_whole_answers() -> None:
    """The bounds are those of resampled answers, each computed by scikit-learn; tokens drawn one by one would give narrower ones."""
    given = answers(12)
    found = measure_marks(given, Bootstrap(resamples=100))["auroc"]
    generator = np.random.default_rng(0)
    draws = generator.integers(12, size=(100, 12))
    areas = []
    for drawn in draws:
        marked = np.concatenate([given[row].marks != 0 for row in drawn])
        areas.append(roc_auc_score(marked, -np.concatenate([given[row].scores for row in drawn])))
    low, high = np.quantile(areas, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_a_difference_between_answers_is_no_difference_within() -> None:
    """A score that knows which answers are marked, and nothing of their tokens."""
    given = [
        MarkedAnswer(scores=np.full(4, -1.0), marks=np.array([-1.0, -1.0, -1.0, 0.0])),
        MarkedAnswer(scores=np.full(4, 1.0), marks=np.array([-1.0, 0.0, 0.0, 0.0])),
    ]
    found = measure_marks(given)
    assert found["auroc"].mean == 0.75
    assert found["auroc_within"].mean == 0.5


def test_aspects_are_compared_with_unmarked_tokens() -> None:
    marks = np.array([-1.0, -1.0, 0.0, 0.0])
    by_aspect = {"facts": np.array([-1.0, 0.0, 0.0, 0.0]), "style": np.array([0.0, -1.0, 0.0, 0.0]), "never": np.zeros(4)}
    one = MarkedAnswer(scores=np.array([1.5, -9.0, 1.0, 2.0]), marks=marks, by_aspect=by_aspect)
    found = measure_marks([one, MarkedAnswer(scores=np.zeros(2), marks=np.zeros(2))])
    assert found["auroc/style"].mean == 1.0
    assert found["auroc/facts"].mean == 0.25
    assert not any(name.endswith("never") for name in found)
    own = one._replace(aspect_scores={"facts": np.array([-1.0, 7.0, 1.0, 2.0])})
    assert measure_marks([own])["auroc/facts"].mean == 1.0
    assert measure_marks([own])["auroc/style"].mean == 1.0


def test_half_of_the_annotators_mark_a_token() -> None:
    one = MarkedAnswer(scores=np.array([0.0, 1.0, 2.0]), marks=np.array([-0.5, -0.4, 0.0]))
    assert measure_marks([one])["marked"].mean == pytest.approx(1 / 3)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_calibration_of_the_probability_that_a_token_is_good(sign: float) -> None:
    marks = sign * np.array([1.0, 0.0, 0.0, 0.0, 1.0])
    good = marks > 0 if sign > 0 else marks == 0
    given = MarkedAnswer(scores=np.zeros(5), marks=marks, probabilities=np.array([0.05, 0.05, 0.75, 0.75, 0.95]))
    expected = (2 * abs(good[:2].mean() - 0.05) + 2 * abs(good[2:4].mean() - 0.75) + abs(good[4] - 0.95)) / 5
    assert measure_marks([given])["ece"].mean == pytest.approx(expected)
    assert "ece" not in measure_marks([given, given._replace(probabilities=None)])


@pytest.mark.parametrize("marks", [np.zeros(3), -np.ones(3), np.zeros(0)])
def test_one_kind_alone_has_no_results(marks: np.ndarray) -> None:
    assert measure_marks([MarkedAnswer(scores=np.arange(len(marks), dtype=float), marks=marks)]) == {}
    assert measure_marks([]) == {}


def test_no_answer_has_both_kinds() -> None:
    """The area within answers does not exist, and is left out."""
    given = [MarkedAnswer(scores=np.zeros(2), marks=-np.ones(2)), MarkedAnswer(scores=np.ones(2), marks=np.zeros(2))]
    found = measure_marks(given, Bootstrap())
    assert "auroc_within" not in found
    assert found["auroc"].mean == 1.0
    assert all(math.isfinite(one.mean) for one in found.values())


def test_results_as_words_and_back() -> None:
    found = measure_marks(answers(), Bootstrap(resamples=100))
    record = {f"eval_token_{name}": {**one.as_json()} for name, one in found.items()}
    assert read_marks({**record, "eval_accuracy": {"mean": 0.5}, "eval_token_x": {"mean": None}, "eval_token_y": 1.0}) == found
    (line,) = describe_marks(found)
    assert line.startswith(f"tokens marked: AUROC {found['auroc'].mean:.3f} [")
    assert f"(place alone {found['auroc_place'].mean:.3f}" in line
    assert describe_marks({}) == []
    assert describe_marks({"nll": Interval(0.5, 0.4, 0.6, 9)}) == []  # no held-out answer has both kinds of tokens
    assert describe_marks({"auroc/a": Interval(0.5, None, None, 9), "auroc_place/a": Interval(0.4, None, None, 9)}) == [
        "tokens marked as a: AUROC 0.500 (no interval) (place alone 0.400 (no interval))"
    ]
