"""Bracketed parses: words and their places in the text, units of limited length, and what cannot be read."""

import pytest

from finegrain.errors import DataError
from finegrain.ops.constituents import find_words, group_words, read_parse

PARSE = "(S (NP (DT The) (JJ old) (NN cat)) (VP (VBD sat) (PP (IN on) (NP (DT the) (NN mat)))) (. .))"


def test_words_and_nodes() -> None:
    parse = read_parse(PARSE)
    assert parse.words == ("The", "old", "cat", "sat", "on", "the", "mat", ".")
    assert parse.nodes[:2] == ((0, 8), (0, 3))
    assert (3, 7) in parse.nodes
    assert find_words(parse, "The old cat sat on the mat.") == [0, 4, 8, 12, 16, 19, 23, 26]


@pytest.mark.parametrize(
    ("most", "units"),
    [
        (9, [0, 0, 0, 0, 0, 0, 0, 0]),  # the whole sentence has 8 tokens
        (5, [0, 0, 0, 1, 1, 1, 1, 1]),  # a noun phrase of 3, a verb phrase of 4; the full stop joins
        (4, [0, 0, 0, 0, 1, 1, 1, 1]),  # the verb alone joins the noun phrase
        (2, [0, 0, 0, 0, 0, 0, 0, 0]),  # single words join the one before them, and so all do
    ],
)
def test_units_of_fewer_tokens(most: int, units: list[int]) -> None:
    assert group_words(read_parse(PARSE), [1] * 8, most) == units


def test_a_word_of_many_tokens_is_a_unit() -> None:
    assert group_words(read_parse("(S (A long) (B short) (C long))"), [6, 1, 6], 3) == [0, 0, 1]


def test_several_trees_and_brackets_of_the_text() -> None:
    parse = read_parse("(S (A Yes)) (S (B -LRB-) (C no) (D -RRB-))")
    assert parse.words == ("Yes", "(", "no", ")")
    assert find_words(parse, "Yes (no)") == [0, 4, 5, 7]


@pytest.mark.parametrize(("text", "words"), [("(S (A a)", "does not close 1"), ("(S a))", "did not open"), ("", "no word"), ("(S (A ))", "no word")])
def test_brackets_that_do_not_match(text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_parse(text)


def test_a_word_that_the_text_does_not_have() -> None:
    with pytest.raises(DataError, match="'dog', which does not follow in the answer after character 3"):
        find_words(read_parse("(S the dog)"), "the cat")
