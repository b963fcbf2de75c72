"""How alike two texts are in their letters, and in their lengths: guards of a reward that does not look at the meaning.

    similarity = mean over n = 1..6 of the F1 of the character n-grams of both texts, in lower case and without white space
    length guard = -max(0, |ln(words of the text / words of the source)| - ln factor)

Source: the similarity is in the manner of chrF, Popovic 2015, https://aclanthology.org/W15-3049; the length guard is ours [OURS].
Deviations: F1 and not F3, because none of the two texts is a reference; an n for which one of them is too short is left out.
"""

import math

from finegrain.errors import UsageError
from finegrain.ops.sari import count_grams

LONGEST = 6
"""Characters."""
FACTOR = 2.0
"""Texts between half and twice as long as the source are not penalised [choice]."""


def similarity(one: str, other: str, longest: int = LONGEST) -> float:
    """In [0, 1]; 1 for texts with the same letters, 0 where one of them has none."""
    left, right = _letters(one), _letters(other)
    found = [_f1(left, right, n) for n in range(1, min(longest, len(left), len(right)) + 1)]
    return sum(found) / len(found) if found else 0.0


def _letters(text: str) -> str:
    """In lower case, without white space."""
    return "".join(text.lower().split())


def _f1(one: str, other: str, n: int) -> float:
    left, right = count_grams(one, n), count_grams(other, n)
    return 2 * (left & right).total() / (left.total() + right.total())


def length_guard(text: str, source: str, factor: float = FACTOR) -> float:
    """At most 0; 0 within `factor` of the source's number of words, either way. A text without words counts as half a word [choice]."""
    if factor < 1:
        raise UsageError(f"a factor of lengths is at least 1, got {factor:g}")
    words = [max(len(one.split()), 0.5) for one in (text, source)]
    return -max(0.0, abs(math.log(words[0] / words[1])) - math.log(factor))
