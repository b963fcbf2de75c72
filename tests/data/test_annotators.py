"""Tests data/annotators.py: the mean over annotators and its shrunk standard deviation."""

import numpy as np
import pytest

from finegrain.data.annotators import N0, AnnotatedAnswer, combine_annotators, group_spans
from finegrain.types import CharSpan

PLACES = np.array([(place, place + 1) for place in range(4)], np.int32)


def answer(*spans: CharSpan, by: tuple[str, ...] = (), places: np.ndarray = PLACES) -> AnnotatedAnswer:
    return AnnotatedAnswer(spans, by, places)


def span(start: int, end: int, value: float, annotator: str = "", std: float | None = None) -> CharSpan:
    return CharSpan(start, end, value, std=std, annotator=annotator)


def test_the_mean_counts_annotators_who_marked_nothing():
    (found,) = combine_annotators([answer(span(0, 2, -1.0, "a"), span(1, 3, -4.0, "b"), by=("a", "b", "c"))], outside=1.0)
    assert found.value.tolist() == pytest.approx([(-1 + 1 + 1) / 3, (-1 - 4 + 1) / 3, (1 - 4 + 1) / 3, 1.0])


def test_the_variance_is_shrunk_towards_the_mean_of_the_data():
    """By hand: two annotators, values 1 and -1 at two of four tokens, so variances 2, 2, 0, 0 and the pooled one is 1."""
    both, alone = answer(span(0, 2, -1.0, "a"), by=("a", "b")), answer(span(3, 4, -1.0, "a"), by=("a",))
    found, single = combine_annotators([both, alone], outside=1.0)
    told = lambda own: np.sqrt((N0 * 1.0 + own) / (N0 + 1) / 2)
    assert found.std.tolist() == pytest.approx([told(2.0), told(2.0), told(0.0), told(0.0)])
    assert single.value.tolist() == [1.0, 1.0, 1.0, -1.0]
    assert single.std.tolist() == pytest.approx([1.0] * 4)


def test_more_annotators_are_surer():
    few = answer(span(0, 2, -1.0, "a"), by=("a", "b"))
    stds = []
    for count in (2, 4, 8):
        by = tuple(f"{number}" for number in range(count))
        agreeing = answer(*(span(0, 4, -1.0, name) for name in by), by=by)
        stds.append(combine_annotators([few, agreeing], outside=1.0)[1].std[0])
    assert stds[0] > stds[1] > stds[2] > 0


def test_one_annotator_each_has_no_deviation():
    found = combine_annotators([answer(span(0, 1, -1.0)), None, answer(by=("a",))], outside=1.0)
    assert found[0].std is None
    assert found[1] is None
    assert found[2].value.tolist() == [1.0] * 4


def test_stated_deviations_are_used_and_divided_by_the_annotators():
    one, two = answer(span(0, 1, -1.0, std=0.5)), answer(span(0, 1, -1.0, "a", std=0.5), span(0, 1, -1.0, "b", std=0.5), by=("a", "b"))
    found = combine_annotators([one], outside=1.0)[0]
    assert found.std.tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5])
    assert combine_annotators([two], outside=1.0)[0].std.tolist() == pytest.approx([np.sqrt(0.5) / 2] * 4)


def test_ragged_and_empty_answers():
    empty = answer(by=("a", "b"), places=np.zeros((0, 2), np.int32))
    found = combine_annotators([empty, answer(span(0, 2, 2.0, "a"), by=("a", "b"))], outside=0.0)
    assert found[0].value.shape == (0,)
    assert found[0].std.shape == (0,)
    assert combine_annotators([empty], outside=0.0)[0].std is None


def test_spans_of_nobody_are_one_annotator():
    assert group_spans([span(0, 1, 1.0), span(1, 2, 1.0)], ()) == {"": [span(0, 1, 1.0), span(1, 2, 1.0)]}
    assert group_spans([], ("a", "b")) == {"a": [], "b": []}
    assert group_spans([], ()) == {"": []}
