"""Values of tokens by annotator and aspect, by hand."""

import numpy as np

from finegrain.data.annotators import AnnotatedAnswer
from finegrain.data.aspects import aspect_values, list_aspects
from finegrain.types import CharSpan

OFFSETS = np.array([[0, 2], [2, 5], [5, 6], [0, 0]], dtype=np.int32)
NAN = np.nan


def test_by_annotator_and_aspect() -> None:
    spans = [
        CharSpan(0, 2, -1.0, aspect="facts", annotator="a"),
        CharSpan(2, 5, -5.0, aspect="style", annotator="b"),
        CharSpan(0, 5, -2.0, annotator="b"),
    ]
    answer = AnnotatedAnswer(spans, ("a", "b", "c"), OFFSETS)
    whole = aspect_values(answer, ())
    np.testing.assert_array_equal(whole[..., 0], [[-1, NAN, NAN, NAN], [-2, -2, NAN, NAN], [NAN] * 4])
    own = aspect_values(answer, ("facts", "style"))
    assert own.shape == (3, 4, 2)
    np.testing.assert_array_equal(own[0], [[-1, NAN], [NAN, NAN], [NAN, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(own[1], [[NAN, NAN], [NAN, -5], [NAN, NAN], [NAN, NAN]])
    assert list_aspects(spans) == ["facts", "style"]


def test_nothing_marked_is_one_annotator_who_marked_nothing() -> None:
    assert np.isnan(aspect_values(AnnotatedAnswer([], (), OFFSETS), ())).all()
    assert aspect_values(AnnotatedAnswer([], (), OFFSETS), ()).shape == (1, 4, 1)
