"""Three rules of form that a prompt states, checked by code: how many are kept, and where an answer breaks them."""

import re

SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
RULES = 3


def sentences(text: str) -> list[tuple[int, int]]:
    """Characters of every sentence with a letter in it."""
    return [found.span() for found in SENTENCE.finditer(text) if re.search(r"\w", found[0])]


def broken(text: str, count: int, phrase: str) -> dict[str, list[tuple[int, int]]]:
    """By broken rule, the characters that break it."""
    found: dict[str, list[tuple[int, int]]] = {}
    whole, last = sentences(text), (max(0, len(text) - 1), len(text))
    if commas := [(place, place + 1) for place, letter in enumerate(text) if letter == ","]:
        found["commas"] = commas
    if len(whole) != count:
        found["sentences"] = whole[count:] or [last]
    if not text.rstrip().endswith(phrase):
        found["ending"] = [whole[-1] if whole else last]
    return found


def words_of(completion: object) -> str:
    """The text of an answer, of messages too."""
    return completion if isinstance(completion, str) else "".join(turn["content"] for turn in completion)  # type: ignore[attr-defined]


def rules_kept(completions: list[object], sentence_count: list[int], phrase: list[str], **columns: object) -> list[float]:
    """Share of the rules that an answer keeps."""
    asked = zip(completions, sentence_count, phrase, strict=True)
    return [1 - len(broken(words_of(one), int(count), ending)) / RULES for one, count, ending in asked]


def rules_broken(completions: list[object], sentence_count: list[int], phrase: list[str], **columns: object) -> list[list[tuple[int, int, float]]]:
    """A broken rule costs its share where it is broken: spans of characters. The sum is the share kept less 1."""
    made = []
    for one, count, ending in zip(completions, sentence_count, phrase, strict=True):
        text = words_of(one)
        found = broken(text, int(count), ending)
        spans = [(start, end, -1 / RULES / len(places)) for places in found.values() for start, end in places if end > start]
        made.append(spans or [(0, len(text), 0.0)])
    return made
