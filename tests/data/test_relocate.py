"""Tests data/relocate.py: quotes whose offsets count other units, escapes and white space."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.data.relocate import find_passage

TEXT = "a 😀 b & c\nd  e b"


def test_right_offsets_are_kept():
    assert find_passage(TEXT, 4, 5, "b") == (4, 5, "", 0)


def test_utf16_offsets_are_converted_before_the_words_are_searched():
    assert find_passage(TEXT, 5, 6, "b") == (4, 5, "its offsets count UTF-16 units", 0)
    assert find_passage(TEXT, 18, 19, "b") == (15, 16, "found by its words", 0)
    assert find_passage("😀" * 9 + " xx yy xx", 18 + 7, 18 + 9, "xx") == (16, 18, "its offsets count UTF-16 units", 0)


def test_the_words_nearest_to_the_offset_are_taken():
    text = "one two one two one"
    assert find_passage(text, 6, 9, "one")[:2] == (8, 11)
    assert find_passage(text, 14, 17, "one")[:2] == (16, 19)
    assert find_passage(text, -5, 400, "one")[:2] == (0, 3)


@pytest.mark.parametrize(
    ("quote", "passage", "how"),
    [
        ("b &amp; c", "b & c", "found without HTML escapes"),
        ("c\r\nd e", "c\nd  e", "found with other white space"),
        ("b &amp;\xa0c d", "b & c\nd", "found with other white space"),
    ],
)
def test_escapes_and_white_space(quote, passage, how):
    found = find_passage(TEXT, 1, 2, quote)
    assert found is not None
    assert found.how == how
    assert TEXT[found.start : found.end] == passage


def test_what_the_text_does_not_have_is_not_found():
    assert find_passage(TEXT, 0, 3, "zzz") is None
    assert find_passage(TEXT, None, None, " \n ") is None
    assert find_passage("", 0, 1, "a") is None


def test_without_an_offset_the_other_places_are_counted():
    assert find_passage(TEXT, None, None, "b") == (4, 5, "found by its words", 1)
    assert find_passage(TEXT, None, None, "😀").others == 0


@given(st.text(alphabet="ab 😀é", min_size=1, max_size=20), st.data())
def test_every_slice_is_found_by_its_utf16_offsets(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    units = lambda place: len(text[:place].encode("utf-16-le")) // 2
    found = find_passage(text, units(start), units(end), text[start:end])
    if not text[start:end].strip():
        return
    assert found is not None
    assert text[found.start : found.end] == text[start:end]
