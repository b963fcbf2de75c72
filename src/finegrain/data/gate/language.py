"""Whether the texts of a row are in different languages, by py3langid (naive Bayes over byte n-grams, 140 languages, no network).

English is recognised first by its most frequent words, which is a hundred times faster; the classifier gets the rest.
"""

import re
from functools import cache
from typing import Any

from finegrain.data.gate.texts import Texts

CHARACTERS = 240
"""Characters of each text that are read; reading more changes few answers and costs time."""
FEWEST_LETTERS = 25
"""The language of shorter texts is not determined."""
SURE = 0.5
"""Minimum probability of a language."""
ENGLISH = frozenset(
    "the of and to is that it for you are with as this be have on not they at by from or what can your do if how there would which their "
    "about when was has will but i we he she my me so because should could get them than these who don't it's i'm that's".split()
)
ENGLISH_SHARE = 0.25
OTHER_WORDS = frozenset("de la le les et el que en der die das und ist een het och att il che di não os um".split())
CODE = re.compile(r"```.*?(?:```|\Z)|https?://\S+|<[^>]{0,200}>", re.DOTALL)
"""Text without a language."""


def languages_differ(texts: Texts) -> bool:
    """Whether prompt and answers, where long enough, are in more than one language."""
    found = {language for text in (texts.question, *texts.answers.values()) if (language := detect_language(text))}
    return len(found) > 1


def detect_language(text: str) -> str | None:
    """An ISO 639-1 code, or None where the text is too short or no language is likely enough."""
    head = text[: 4 * CHARACTERS]
    if "```" in head or "http" in head or "<" in head:
        head = CODE.sub(" ", head)
    head = head.strip()[:CHARACTERS]
    words = head.casefold().split()
    if _english(words):
        return "en"
    if sum(map(str.isalpha, head)) < FEWEST_LETTERS * (1 if head.isascii() else 0.5):
        return None
    language, probability = _classifier().classify(head)
    return str(language) if probability >= SURE else None


def _english(words: list[str]) -> bool:
    return len(words) >= 5 and sum(word in ENGLISH for word in words) >= ENGLISH_SHARE * len(words) and OTHER_WORDS.isdisjoint(words)


@cache
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
