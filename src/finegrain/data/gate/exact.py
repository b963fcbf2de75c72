"""Exact checks on one row of text: each names what is wrong, in words where the row number does not say it."""

import math
from collections.abc import Callable, Iterator
from numbers import Real

from finegrain.data.answer_text import text_of_answer
from finegrain.data.conversations import ASSISTANT, is_conversation
from finegrain.data.gate.texts import Texts
from finegrain.data.records import Answer, Row
from finegrain.types import Json

Named = tuple[str, str]
"""Kind, and words for the first occurrence."""

PROMPTS = ("prompt", "question")
"""Columns that hold what is asked."""
NUMBERS = ("weight", "margin")
"""Columns that must be numbers where they are there."""


def exact(raw: Json, row: Row, texts: Texts) -> Iterator[Named]:
    """The exact kinds that one row shows."""
    for kind, check in CHECKS:
        words = check(raw, row, texts)
        if words is not None:
            yield kind, words


def _wrong_type(raw: Json, row: Row, texts: Texts) -> str | None:
    for name in NUMBERS:
        if raw.get(name) is not None and not isinstance(raw[name], Real):
            return f"column {name!r}: expected a number, found {type(raw[name]).__name__}"
    return None


def _empty(raw: Json, row: Row, texts: Texts) -> str | None:
    if any(not text.strip() for text in texts.answers.values()):
        return ""
    if any(isinstance(value := raw.get(name), str) and not value.strip() for name in PROMPTS):
        return ""
    if not isinstance(row.prompt, str) and row.prompt:
        asked = [turn.content for turn in row.prompt if turn.role not in (ASSISTANT, "system")]
        return "" if asked and not asked[-1].strip() else None
    return None


def _identical(raw: Json, row: Row, texts: Texts) -> str | None:
    return "" if "rejected" in row.answers and row.answers["chosen"].content == row.answers["rejected"].content else None


def _not_a_number(raw: Json, row: Row, texts: Texts) -> str | None:
    for name, number in row.columns.items():
        if not math.isfinite(number):
            return f"column {name!r} is {number}"
    if any(not math.isfinite(number) for answer in row.answers.values() for number in _numbers(answer)):
        return "a span or a token reward"
    return None


def _numbers(answer: Answer) -> list[float]:
    return [value for _, _, value in answer.spans or ()] + (answer.token_reward or [])


def _prompt_mismatch(raw: Json, row: Row, texts: Texts) -> str | None:
    return "" if "prompt_mismatch" in row.notes else None


def _neutral_step(raw: Json, row: Row, texts: Texts) -> str | None:
    return "" if "neutral_step" in row.notes else None


def _span_outside_text(raw: Json, row: Row, texts: Texts) -> str | None:
    for answer in row.answers.values():
        if answer.spans:
            length = len(text_of_answer(answer.content))
            for start, end, _ in answer.spans:
                if not 0 <= start < end <= length:
                    return f"span {start}..{end} of an answer of {length} characters"
    return None


def _tie(raw: Json, row: Row, texts: Texts) -> str | None:
    return "" if "rejected" in row.answers and row.columns.get("tie") == 1 else None


CHECKS: tuple[tuple[str, Callable[[Json, Row, Texts], str | None]], ...] = (
    ("missing_column", _wrong_type),
    ("empty", _empty),
    ("identical", _identical),
    ("not_a_number", _not_a_number),
    ("prompt_mismatch", _prompt_mismatch),
    ("neutral_step", _neutral_step),
    ("span_outside_text", _span_outside_text),
    ("tie", _tie),
)


def last_turn(raw: Json) -> Iterator[Named]:
    """A `template` finding where a conversation ends with another turn than the assistant's, which no format trains on."""
    for name in ("chosen", "rejected", "messages"):
        value = raw.get(name)
        if isinstance(value, str) and value.rfind("\n\nHuman:") > value.rfind("\n\nAssistant:") >= 0:
            yield "template", f"{name} ends with a turn of the human"
        elif isinstance(value, list) and is_conversation(value) and value[-1]["role"] != ASSISTANT:
            yield "template", f"{name} ends with a turn of {value[-1]['role']}"
