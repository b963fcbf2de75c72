"""Tests report/pack.py and report/pairs.py: spans that name an aspect, an annotator or a deviation."""

import json

import numpy as np
import pytest

from finegrain.report.pack import pack_answer, span_words, token_runs
from finegrain.report.pairs import ExaminedAnswer, span_as_json, span_from_json
from finegrain.types import CharSpan

PLACES = np.array([(0, 2), (2, 4), (4, 6), (6, 6)])
SPANS = (CharSpan(0, 4, -5.0, 0.25, "Accuracy</script>", "anna"), CharSpan(2, 6, -1.0, annotator="bert"))


def test_a_span_survives_its_line_of_json() -> None:
    for span in (*SPANS, CharSpan(1, 2, 0.5)):
        assert span_from_json(json.loads(json.dumps(span_as_json(span)))) == span
    assert span_as_json(CharSpan(1, 2, 0.5)) == [1, 2, 0.5]


def test_the_value_of_a_token_is_the_mean_over_everybody_who_looked() -> None:
    runs = token_runs(SPANS, PLACES, ("anna", "bert", "cleo"))
    assert [(first, last, pytest.approx(value)) for first, last, value in runs] == [(0, 0, -5 / 3), (1, 1, -2.0), (2, 3, -1 / 3)]
    assert token_runs((CharSpan(0, 2, -1.0), CharSpan(2, 4, 1.0)), PLACES) == [(0, 0, -1.0), (1, 1, 1.0)]
    assert token_runs((), PLACES, ("anna",)) == []


def test_what_a_span_says_is_shown_at_its_tokens() -> None:
    assert span_words(SPANS, PLACES) == [(0, 1, "-5 Accuracy</script>, anna, ± 0.25"), (1, 3, "-1 bert")]
    assert span_words((CharSpan(0, 2, -1.0),), PLACES) == []
    answer = ExaminedAnswer(text="abcdef", offsets=PLACES, mask=np.ones(4, bool), spans=SPANS, annotators=("anna", "bert"))
    assert pack_answer("answer", answer)["l"] == span_words(SPANS, PLACES)
