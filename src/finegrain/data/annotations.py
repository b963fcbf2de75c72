"""What is said of an answer beside its text: character spans, token rewards and parses, from a row's columns or an annotation tool's records.

A reader of a tool makes `Mark` records, and `place_marks` puts them on the text: a mark with a quote is compared with it and looked for where the
two differ; what was moved or not found is noted, span by span, and counted by the gate.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, NamedTuple

from finegrain.data.answer_text import join_answer, shift_spans
from finegrain.data.columns import to_float
from finegrain.data.records import Answer, Text, Turn
from finegrain.data.relocate import find_passage
from finegrain.data.source_rows import CellError
from finegrain.errors import DataError
from finegrain.types import CharSpan

QUOTES = ("quote", "text")
"""Keys of a span that hold the words it covers."""
WITH_RATERS = "_by_rater"
"""Suffix of a column of spans by annotator."""


class Mark(NamedTuple):
    """One passage that somebody marked, as a tool wrote it."""

    start: int | None
    """None: the tool gave no offset that counts characters; the quote says where it is."""
    end: int | None
    value: float
    std: float | None = None
    aspect: str = ""
    annotator: str = ""
    quote: str = ""
    """The words it covers; empty where the tool does not say."""


class Annotation(NamedTuple):
    """The marks of one answer on its text."""

    spans: list[CharSpan]
    notes: tuple[tuple[str, str], ...]
    """The kind of finding and a description, one for each span that was moved, found several times or not found."""


def place_marks(marks: Iterable[Mark], text: str) -> Annotation:
    """The marks as spans of the text; a quote decides where it and the offsets differ. What lies outside the text is left to the gate."""
    spans: list[CharSpan] = []
    notes: list[tuple[str, str]] = []
    for mark in marks:
        start, end = mark.start, mark.end
        if mark.quote:
            found = find_passage(text, start, end, mark.quote)
            if found is None:
                notes.append(("span_not_found", f"{mark.quote!r:.60} is not in the answer"))
                continue
            if found.others:
                notes.append(("span_ambiguous", f"{mark.quote!r:.60} stands {found.others + 1} times in the answer; the first is taken"))
            if found.how and start is not None:
                notes.append(("span_moved", f"{mark.quote!r:.60}: {start}..{end} is {found.start}..{found.end}, {found.how}"))
            start, end = found.start, found.end
        if start is None or end is None:
            notes.append(("span_not_found", "a span with neither offsets nor a quote"))
            continue
        spans.append(CharSpan(start, end, mark.value, mark.std, mark.aspect, mark.annotator))
    return Annotation(spans, tuple(notes))


def annotate(content: Text, marks: Sequence[Mark] | None, annotators: Iterable[str] = ()) -> Answer:
    """An answer with marks over the contents of its turns; None: nobody looked at it."""
    if marks is None:
        return Answer(content=content)
    placed = place_marks(marks, _marked_text(content) if any(mark.quote for mark in marks) else "")
    names = tuple(dict.fromkeys((*annotators, *(mark.annotator for mark in marks if mark.annotator))))
    spans = shift_spans(placed.spans, content)
    return Answer(content=content, spans=spans, annotators=names, notes=placed.notes)


def _marked_text(content: Text) -> str:
    """The text that annotators see: without reasoning and calls."""
    return content if isinstance(content, str) else join_answer(tuple(Turn(turn.role, turn.content) for turn in content))


def read_answer(row: Mapping[str, Any], prefix: str, content: Text, role: str) -> Answer:
    """An answer with the columns `<prefix>_spans` (or `spans`), `<prefix>_spans_by_rater`, `<role>_token_reward` and `<role>_parse`."""
    reward, parse = f"{role}_token_reward", f"{role}_parse"
    annotated = _read_annotation(row, f"{prefix}_spans" if prefix else "spans", content, role)
    return replace(annotated, token_reward=_rewards(row.get(reward), reward), parse=_parse(row.get(parse), parse))


def _read_annotation(row: Mapping[str, Any], column: str, content: Text, role: str) -> Answer:
    raters = row.get(column + WITH_RATERS)
    if raters is not None:
        return annotate(content, *read_raters(raters, column + WITH_RATERS))
    cell = row.get(column)
    if cell is None:
        return Answer(content=content)
    own = read_name(row.get("annotator"))
    return annotate(content, read_marks(cell, column, own), _everybody(row, role, own))


def read_raters(cell: Any, column: str) -> tuple[list[Mark], list[str]]:
    """{annotator: [span]}: the marks, and everybody, since an empty list says that this annotator found nothing; null: did not look."""
    if not isinstance(cell, dict):
        raise DataError(f"column {column!r}: expected an object with a list of spans for each annotator, found {type(cell).__name__}")
    looked = {str(name): own for name, own in cell.items() if own is not None}
    return [mark for name, own in looked.items() for mark in read_marks(own, column, name)], list(looked)


def read_name(value: Any) -> str:
    """An annotator's name or number as text; empty where it is neither."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _everybody(row: Mapping[str, Any], role: str, own: str) -> list[str]:
    """Who looked at an answer: the column `annotators`, what `finegrain mark --merge` wrote, else the column `annotator`."""
    names = row.get("annotators")
    if isinstance(names, list):
        return [read_name(name) for name in names]
    record = row.get("mark")
    try:
        return [str(name) for name in record["answers"][role]["annotators"]]  # type: ignore[index]
    except (KeyError, TypeError):
        return [own] if own else []


def read_marks(cell: Any, column: str, annotator: str = "") -> list[Mark]:
    """[{start, end, value, std?, aspect?, annotator?, quote?}] or [[start, end, value]]; spans without an annotator are `annotator`'s."""
    if not isinstance(cell, list):
        raise DataError(f"column {column!r}: expected a list of spans, found {type(cell).__name__}")
    return [_mark(item, column, annotator) for item in cell]


def _mark(item: Any, column: str, annotator: str) -> Mark:
    try:
        if not isinstance(item, dict):
            start, end, value = item
            first, last = _place(start, end, column)
            return Mark(first, last, to_float(value), annotator=annotator)
        quote = next((item[name] for name in QUOTES if isinstance(item.get(name), str)), "")
        begin, stop = (None, None) if quote and item.get("start") is None else _place(item["start"], item["end"], column)
        std, aspect = item.get("std"), item.get("aspect")
        known = None if std is None else to_float(std)
        if (known is not None and known < 0) or not isinstance(aspect, str | None):
            raise ValueError
        return Mark(begin, stop, to_float(item["value"]), known, aspect or "", read_name(item.get("annotator")) or annotator, quote)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CellError):
            raise
    raise DataError(
        f"column {column!r}: expected {{start, end, value}} or [start, end, value] with whole start and end (or a quote in their place), a std of 0 "
        f"or more and an aspect that is text, found {item!r:.80}"
    )


def _place(start: Any, end: Any, column: str) -> tuple[int, int]:
    if not (isinstance(start, Real) and isinstance(end, Real)):
        raise TypeError
    first, last = to_float(start), to_float(end)
    if not (math.isfinite(first) and math.isfinite(last)):
        raise CellError("not_a_number", f"column {column!r}: a span from {first} to {last}")
    if not (first.is_integer() and last.is_integer()):
        raise ValueError
    return int(first), int(last)


def _parse(value: Any, column: str) -> str:
    if not isinstance(value, str | None):
        raise DataError(f"column {column!r}: expected a bracketed parse as text, found {value!r:.80}")
    return value or ""


def _rewards(value: Any, column: str) -> list[float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(number, Real) for number in value):
        raise DataError(f"column {column!r}: expected a list of numbers, one per token")
    return [to_float(number) for number in value]
