"""Exact checks on one row of text: each names what is wrong, with a description where the row number does not show it."""

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

from finegrain.data.annotators import group_spans
from finegrain.data.answer_text import join_answer
from finegrain.data.conversations import ASSISTANT, is_conversation
from finegrain.data.convert.usual import CONVERSED
from finegrain.data.gate.texts import Texts
from finegrain.data.reading import Reading
from finegrain.data.records import Answer, Row, Turn, differing_roles

Named = tuple[str, str]
"""Kind, and a description of the first occurrence."""

PROMPTS = ("prompt", "question")
"""Columns that hold the prompt."""
ANSWERS = ("chosen", "rejected", "completion", "response", "answer", "output", "preferred_output", "non_preferred_output")
"""Columns that end with text that trains."""
LARGEST = 3.4e38
"""The range of single precision, in which values of spans and token rewards are kept."""
NUMBERS = ("weight", "margin")
"""Columns that must be numbers where present."""
RANGES = {
    **dict.fromkeys(("weight", "strength_std", "chosen_start", "rejected_start"), (0, math.inf)),
    **dict.fromkeys(("label_prob", "tie", "flip", "is_chosen_safe", "is_rejected_safe"), (0, 1)),
}
"""The least and the greatest value of columns that losses read as a weight, a deviation, a place or a probability."""


def check_exact(raw: Mapping[str, Any], row: Row, texts: Texts) -> Iterator[Named]:
    """The exact kinds found in one row."""
    for kind, check in CHECKS:
        words = check(raw, row, texts)
        if words is not None:
            yield kind, words
    yield from check_spans(row)


def _wrong_type(raw: Mapping[str, Any], row: Row, texts: Texts) -> str | None:
    for name in NUMBERS:
        if raw.get(name) is not None and not isinstance(raw[name], Real):
            return f"column {name!r}: expected a number, found {type(raw[name]).__name__}"
    return None


def _empty(raw: Mapping[str, Any], row: Row, texts: Texts) -> str | None:
    for role, text in texts.answers.items():
        if not text.strip():
            return _silent(row, role)
    if (isinstance(row.prompt, str) or not row.prompt) and any(_blank(raw.get(name)) for name in PROMPTS):
        return ""
    if not isinstance(row.prompt, str) and row.prompt:
        asked = [turn.content for turn in row.prompt if turn.role not in (ASSISTANT, "system")]
        return "" if asked and not asked[-1].strip() else None
    return None


def _blank(cell: object) -> bool:
    return not cell.strip() if isinstance(cell, str) else isinstance(cell, list | tuple) and not cell


def _silent(row: Row, role: str) -> str:
    """Describes an answer in which the assistant has no turn."""
    content = row.answers[role].content
    if isinstance(content, str) or any(turn.role == ASSISTANT for turn in content):
        return ""
    roles = dict.fromkeys(turn.role for turn in (*row.prompt, *content) if isinstance(turn, Turn))
    return f"no turn of role {ASSISTANT}; roles found: {', '.join(roles) or 'none'}"


def _identical(raw: Mapping[str, Any], row: Row, texts: Texts) -> str | None:
    contents = [row.answers[role].content for role in differing_roles(row.answers)]
    return "" if len(set(contents)) < len(contents) else None


def _not_a_number(raw: Mapping[str, Any], row: Row, texts: Texts) -> str | None:
    for name, number in row.columns.items():
        if not math.isfinite(number):
            return f"column {name!r} is {number}"
    if any(not abs(number) <= LARGEST for answer in row.answers.values() for number in _numbers(answer)):
        return "a span or a token reward is not a finite number"
    return None


def _numbers(answer: Answer) -> list[float]:
    return [number for span in answer.spans or () for number in (span.value, span.std or 0.0)] + (answer.token_reward or [])


def _out_of_range(raw: Mapping[str, Any], row: Row, texts: Texts) -> str | None:
    for name, (low, high) in RANGES.items():
        number = row.columns.get(name, low)
        if number < low or number > high:
            return f"column {name!r} is {number:g}, expected {'0 or more' if high == math.inf else f'{low} to {high}'}"
    return None


def _prompt_mismatch(raw: Mapping[str, Any], row: Row, texts: Texts) -> str | None:
    return "" if "prompt_mismatch" in row.notes else None


def _neutral_step(raw: Mapping[str, Any], row: Row, texts: Texts) -> str | None:
    return "" if "neutral_step" in row.notes else None


def _repeated_answer(raw: Mapping[str, Any], row: Row, texts: Texts) -> str | None:
    return "" if "repeated_answer" in row.notes else None


def _harmless_order(raw: Mapping[str, Any], row: Row, texts: Texts) -> str | None:
    return "" if "rejected" in row.answers and row.columns.get("harmless") == 1 and row.columns.get("helpful") == 0 else None


def _tie(raw: Mapping[str, Any], row: Row, texts: Texts) -> str | None:
    return "" if "rejected" in row.answers and row.columns.get("tie") == 1 else None


CHECKS: tuple[tuple[str, Callable[[Mapping[str, Any], Row, Texts], str | None]], ...] = (
    ("missing_column", _wrong_type),
    ("empty", _empty),
    ("identical", _identical),
    ("not_a_number", _not_a_number),
    ("out_of_range", _out_of_range),
    ("prompt_mismatch", _prompt_mismatch),
    ("neutral_step", _neutral_step),
    ("repeated_answer", _repeated_answer),
    ("tie", _tie),
    ("harmless_order", _harmless_order),
)


def check_spans(row: Row) -> Iterator[Named]:
    """(kind, description), one for each span."""
    for answer in row.answers.values():
        yield from answer.notes
        if answer.spans:
            yield from _check_places(answer)


def _check_places(answer: Answer) -> Iterator[Named]:
    length = len(join_answer(answer.content))
    for annotator, spans in group_spans(answer.spans or (), answer.annotators).items():
        reached = 0
        for start, end, *_ in sorted(spans):
            if start >= end:
                yield "empty_span", f"span {start}..{end}"
                continue
            if start < 0 or end > length:
                yield "span_outside_text", f"span {start}..{end} of an answer of {length} characters"
            if start < reached:
                whose = f" of {annotator}" if annotator else ""
                yield (
                    "overlapping_spans",
                    f"span {start}..{end}{whose} begins before an earlier one ends; where they overlap the later one in the file counts",
                )
            reached = max(reached, end)


def check_last_turn(cells: Reading) -> Iterator[Named]:
    """A `template` finding where a conversation does not end with a turn of the assistant, so that its end does not train."""
    alone = "chosen" not in cells
    for name, value in cells.seen():
        if isinstance(value, str) and value.rfind("\n\nHuman:") > value.rfind("\n\nAssistant:") >= 0:
            yield "template", f"{name} ends with a turn of the human"
        elif (
            (name in ANSWERS or (alone and name in CONVERSED))
            and isinstance(value, list)
            and is_conversation(value)
            and value[-1]["role"] != ASSISTANT
        ):
            yield "template", f"{name} ends with a turn of {value[-1]['role']}"
