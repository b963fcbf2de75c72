"""Readability: the worked number, how text is counted, and what the formulas punish."""

import pytest

from finegrain.errors import UsageError
from finegrain.ops.readability import TextCounts, count_syllables, count_text, flesch_ease, flesch_kincaid

SYLLABLES = {
    **dict.fromkeys(("make", "whole", "takes", "jumped", "the", "used", "queue", "see", "time", "b", "r2"), 1),
    **dict.fromkeys(("table", "boxes", "wanted", "lion", "nation", "people", "special", "science", "trying", "being", "apple", "houses"), 2),
    **dict.fromkeys(("idea", "video", "area", "beautiful", "medicine", "evidence", "diagnosed", "well-being"), 3),
    **dict.fromkeys(("simplification", "chemotherapy"), 5),
}


def test_worked_number() -> None:
    assert flesch_kincaid(TextCounts(words=10, sentences=2, syllables=14)) == pytest.approx(2.88, abs=1e-12)
    assert flesch_ease(TextCounts(words=10, sentences=2, syllables=14)) == pytest.approx(206.835 - 5.075 - 118.44, abs=1e-9)


def test_fewer_syllables_are_easier() -> None:
    grades = [flesch_kincaid(TextCounts(10, 2, syllables)) for syllables in range(10, 20)]
    assert grades == sorted(grades)
    ease = [flesch_ease(TextCounts(10, 2, syllables)) for syllables in range(10, 20)]
    assert ease == sorted(ease, reverse=True)


@pytest.mark.parametrize("word", SYLLABLES)
def test_syllables(word: str) -> None:
    assert count_syllables(word) == SYLLABLES[word]


@pytest.mark.parametrize(
    ("text", "words", "sentences"),
    [
        ("", 0, 0),
        ("...", 0, 0),
        ("One two three", 3, 1),
        ("One. Two! Three?", 3, 3),
        ('He said "no." Then 3.5 of them left', 8, 2),
        ("It isn't well-known\nhere", 4, 1),
        ("End.  \n\n", 1, 1),
    ],
)
def test_words_and_sentences(text: str, words: int, sentences: int) -> None:
    assert count_text(text)[:2] == (words, sentences)


def test_full_stops_game_the_grade() -> None:
    """Documented: the formula rewards them."""
    long, cut = (flesch_kincaid(count_text(text)) for text in ("one word and another word and a third", "one word. and another. word and. a third."))
    assert cut < long


def test_without_words() -> None:
    with pytest.raises(UsageError, match="without words"):
        flesch_kincaid(count_text("!"))
