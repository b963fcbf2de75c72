"""Guards: likeness in letters and the length."""

import math

import pytest

from finegrain.errors import UsageError
from finegrain.ops.text_similarity import length_guard, similarity


def test_similarity() -> None:
    assert similarity("The cat sat", "the  CAT sat") == pytest.approx(1.0)
    assert similarity("abc", "xyz") == 0.0
    assert similarity("", "abc") == similarity("abc", "") == 0.0
    text, near, far = "the doctor gave the patient a pill", "the doctor gave a patient one pill", "it rained in the north all week"
    assert 1 > similarity(text, near) > similarity(text, far) > 0
    assert similarity(text, near) == pytest.approx(similarity(near, text), abs=1e-12)
    assert similarity("ab", "ac", longest=2) == pytest.approx((0.5 + 0.0) / 2)


def test_length_guard() -> None:
    source = "one two three four"
    assert [length_guard(" ".join(["a"] * words), source) for words in (2, 4, 8)] == [0.0, 0.0, 0.0]
    assert length_guard("a", source) == pytest.approx(math.log(2) - math.log(4))
    assert length_guard(" ".join(["a"] * 16), source) == pytest.approx(-math.log(2))
    assert length_guard("", source) == pytest.approx(math.log(2) - math.log(8))
    assert length_guard("a b", source, factor=1.0) == pytest.approx(-math.log(2))
    with pytest.raises(UsageError, match="at least 1"):
        length_guard("a", "b", factor=0.5)
