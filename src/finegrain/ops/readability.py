"""Readability of English text by counts of words, sentences and syllables.

    FKGL = 0.39 words/sentences + 11.8 syllables/words - 15.59          (school grade; lower is easier)
    FRE  = 206.835 - 1.015 words/sentences - 84.6 syllables/words       (higher is easier)

Source: Kincaid et al. 1975 (grade level), Flesch 1948 (reading ease), as used for simplification, https://arxiv.org/abs/2401.15043.
Deviations: how words, sentences and syllables are counted is ours [OURS], below: a rule, without a dictionary, which is wrong for some words
(something, rhythm); another counter gives other numbers.
"""

import re
from typing import NamedTuple

from finegrain.errors import UsageError

WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*|\d+(?:[.,]\d+)*")
"""Letters with inner apostrophes and hyphens, or a number."""
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)")
"""Full stops, question and exclamation marks before white space or the end; an abbreviation counts as an end."""
VOWELS = re.compile(r"[aeiouyàáâäæèéêëìíîïòóôöœùúûü]+")
SILENT_END = re.compile(r"(?<![aeiouy])(?:(?<!l)e|(?<=[aeiouy]l)e|(?<![cgsxz])(?<!ch)(?<!sh)(?<!l)es|(?<![td])ed)$")
"""A last e that is not spoken: make, whole, takes, jumped; not table, boxes, wanted."""
APART = re.compile(r"(?<![tscx])i[ao](?!us)|e[ao]$|(?<=cr)ea|[ey]ing$|(?<=sc)ie(?=n)")
"""Two vowels that are spoken apart: radio, idea, video, create, trying, science; not nation, special, people."""


class TextCounts(NamedTuple):
    """Of a text."""

    words: int
    sentences: int
    syllables: int


def count_text(text: str) -> TextCounts:
    """Words, sentences (at least one where there is a word; text behind the last full stop is one) and syllables."""
    words = WORD.findall(text)
    ends = [found.end() for found in SENTENCE_END.finditer(text)]
    pieces = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return TextCounts(len(words), sum(bool(WORD.search(piece)) for piece in pieces), sum(map(count_syllables, words)))


def count_syllables(word: str) -> int:
    """At least 1: groups of vowels, less a silent e at the end, plus vowels that are spoken apart. A number counts as one, a hyphen divides."""
    return sum(_syllables(part) for part in re.split(r"[-]", word.lower())) or 1


def _syllables(word: str) -> int:
    groups = len(VOWELS.findall(word))
    if groups > 1 and SILENT_END.search(word):
        groups -= 1
    return max(1, groups + len(APART.findall(word)))


def flesch_kincaid(counts: TextCounts) -> float:
    """Grade level; raises UsageError for a text without words."""
    per_sentence, per_word = _rates(counts)
    return 0.39 * per_sentence + 11.8 * per_word - 15.59


def flesch_ease(counts: TextCounts) -> float:
    """Reading ease; raises UsageError for a text without words."""
    per_sentence, per_word = _rates(counts)
    return 206.835 - 1.015 * per_sentence - 84.6 * per_word


def _rates(counts: TextCounts) -> tuple[float, float]:
    """Words per sentence and syllables per word."""
    if counts.words < 1 or counts.sentences < 1:
        raise UsageError("a text without words has no readability")
    return counts.words / counts.sentences, counts.syllables / counts.words
