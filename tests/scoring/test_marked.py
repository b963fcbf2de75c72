"""Annotated answers joined with their token scores: only tokens that train, signs averaged over annotators, probabilities by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from finegrain.data.annotators import AnnotatedAnswer
from finegrain.data.records import Response
from finegrain.scoring.marked import join_marks
from finegrain.types import CharSpan, Scored

OFFSETS = np.array([[0, 1], [1, 2], [2, 3], [3, 4]], dtype=np.int32)
MASK = np.array([True, False, True, True])
RESPONSE = Response(np.arange(4, dtype=np.int32), MASK, OFFSETS, "abcd")
SPANS = [CharSpan(0, 3, -5.0, aspect="facts", annotator="a"), CharSpan(2, 3, -1.0, annotator="b"), CharSpan(3, 4, 2.0, annotator="b")]
SCORES = torch.tensor([0.0, 99.0, -2.0, 1.0])


def test_tokens_that_train() -> None:
    found = join_marks(RESPONSE, AnnotatedAnswer(SPANS, ("a", "b"), OFFSETS), Scored(SCORES), {"facts": -SCORES})
    assert found.marks.tolist() == [-0.5, -1.0, 0.5]
    assert found.scores.tolist() == [0.0, -2.0, 1.0]
    assert {name: values.tolist() for name, values in found.by_aspect.items()} == {"facts": [-0.5, -0.5, 0.0]}
    assert found.aspect_scores["facts"].tolist() == [0.0, 2.0, -1.0]
    assert found.probabilities is not None
    assert found.probabilities.tolist() == pytest.approx([0.5, 1 / (1 + np.exp(2)), 1 / (1 + np.exp(-1))])


def test_probability_of_a_score_with_a_deviation() -> None:
    found = join_marks(RESPONSE, AnnotatedAnswer([], (), OFFSETS), Scored(SCORES, torch.tensor([1.0, 1.0, 4.0, 0.5])), {})
    assert found.probabilities is not None
    assert found.probabilities.tolist() == pytest.approx([0.5, norm.cdf(-0.5), norm.cdf(2.0)])
    assert not found.marks.any()
    assert found.by_aspect == {}
