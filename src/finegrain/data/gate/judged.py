"""Heuristic kinds: rules of thumb on one row, whose precision and recall are measured (benchmarks/results/gate.md)."""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from finegrain.data.gate.language import languages_differ
from finegrain.data.gate.markup import find_answer_markup, find_prompt_markup
from finegrain.data.gate.texts import Texts

WORDS = re.compile(r"\w+")
TAGGED = re.compile(r"<v>.*?</v>", re.DOTALL)

FEWEST_WORDS = 8
"""Shorter answers are near-identical only when their words are equal."""
SHARED_WORDS = 0.9
"""Share of words that two near-identical answers have in common."""
REPEATED_WORDS = 4
"""A shorter question may occur in an answer by chance."""
OPENING_WORDS = 5
"""Minimum number of words at the end of a question and the start of an answer that make a leak; a whole question of two words counts too."""


def check_heuristics(texts: Texts, own_markup: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The heuristic kinds found in one row; `own_markup` is the markup that the prompts of this file contain by design."""
    for kind, check in CHECKS:
        if check(texts):
            yield kind, ""
    if found := [name for text in texts.answers.values() if (name := find_answer_markup(text))] or find_prompt_markup(texts, own_markup):
        yield "template", f"{found[0]!r} inside a text"
    if tagged := next((passage[0] for text in texts.answers.values() if (passage := TAGGED.search(text))), None):
        yield "inline_tags", f"{tagged!r:.60}: read as text, since this file is not read as answers with inline tags"


def _near_identical(texts: Texts) -> bool:
    if len(texts.answers) != 2:  # of several ranked answers two may well be alike
        return False
    one, other = texts.answers.values()
    if one == other or abs(len(one) - len(other)) > 0.2 * max(len(one), len(other), 10):
        return False
    words, others = WORDS.findall(one.casefold()), WORDS.findall(other.casefold())
    if words == others:
        return True
    longest = max(len(words), len(others))
    if longest < FEWEST_WORDS:
        return False
    if _shared_ends(words, others) >= longest - 1:
        return True
    return sum((Counter(words) & Counter(others)).values()) >= SHARED_WORDS * longest


def _shared_ends(one: list[str], other: list[str]) -> int:
    """Number of words that two lists share at their start and their end together."""
    shortest = min(len(one), len(other))
    start = next((i for i in range(shortest) if one[i] != other[i]), shortest)
    end = next((i for i in range(shortest - start) if one[-1 - i] != other[-1 - i]), shortest - start)
    return start + end


def _encoding(texts: Texts) -> bool:
    return any(_badly_decoded(text) for text in (texts.prompt, *texts.answers.values()))


CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd\ud800-\udfff]")
"""Characters that no text contains: controls, the replacement character, halves of surrogate pairs."""


def _badly_decoded(text: str) -> bool:
    if text.isascii() and text.isprintable():
        return False
    if CONTROLS.search(text):
        return True
    if text.isascii():
        return False
    from ftfy.badness import is_bad

    return bool(is_bad(text))


def _prompt_in_answer(texts: Texts) -> bool:
    """Whether an answer contains the whole question or begins with the end of the question."""
    question = _plain(texts.question)
    words = question.count(" ") + 1
    if words < 2:
        return False
    return any(
        answer.startswith(question) or (words >= REPEATED_WORDS and question in answer) or _goes_on(question, answer)
        for answer in map(_plain, texts.answers.values())
    )


def _goes_on(question: str, answer: str) -> bool:
    opening = " ".join(answer.split(" ", OPENING_WORDS)[:OPENING_WORDS])
    place = question.rfind(opening) if opening.count(" ") == OPENING_WORDS - 1 else -1
    return place >= 0 and answer.startswith(question[place:])


def _plain(text: str) -> str:
    """Lower case, white space collapsed to single blanks."""
    return " ".join(text.casefold().split())


CHECKS: tuple[tuple[str, Callable[[Texts], bool]], ...] = (
    ("near_identical", _near_identical),
    ("encoding", _encoding),
    ("prompt_in_answer", _prompt_in_answer),
    ("language", languages_differ),
)
