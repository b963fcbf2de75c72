"""Answers that people marked: what all readers of annotation tools share, doccano's exports, MQM's sets, and texts with inline tags.

Every reader makes `Mark` records of one answer; `data.annotations` puts them on the text. The value of a label is decided by `label_value`.
"""

import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from finegrain.data.annotations import Mark, annotate, read_name, read_raters
from finegrain.data.columns import list_names, read_numeric_columns, read_text, to_float
from finegrain.data.conversations import read_prompt
from finegrain.data.convert.build import make_assistant_turn
from finegrain.data.left_out import Made
from finegrain.data.reading import Reading
from finegrain.data.records import Answer, Row, Text
from finegrain.errors import DataError

PROMPTS = ("prompt", "question", "instruction", "query", "source", "context", "input")
"""Names under which a tool's task may hold what was answered, in the order in which they are looked for."""
ANSWERS = ("response", "answer", "completion", "output", "generation", "prediction", "translation", "target", "text")
"""Names under which it may hold the answer that was marked."""
GOOD = frozenset({"good", "correct", "right", "positive", "true", "yes", "ok", "supported", "factual", "helpful", "+"})
SEVERITIES = {"critical": -5.0, "major": -5.0, "minor": -1.0, "neutral": 0.0, "no-error": 0.0, "no error": 0.0}
"""MQM's weights, of which those of critical errors vary; https://aclanthology.org/2021.tacl-1.87."""
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
TAG = re.compile(r"<(/?)v>")


def label_value(label: str) -> float:
    """The value of a label [choice]: a number is itself, a word for good is 1, MQM's severities have their weights, others are errors, -1."""
    name = label.strip().lower()
    if NUMBER.fullmatch(name):
        return float(name)
    return 1.0 if name in GOOD else SEVERITIES.get(name, -1.0)


def find_task(fields: Mapping[str, Any], answer: str = "") -> tuple[Text, str]:
    """The prompt (empty where there is none) and the answer among a task's fields; `answer` is the field that was marked, where the tool says."""
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    name = answer if answer in texts else next((name for name in ANSWERS if name in texts), "")
    if not name:
        raise DataError(f"no field with the answer that was marked: expected one of {', '.join(ANSWERS)}, found {list_names(fields) or 'none'}")
    asked = next((own for own in PROMPTS if own in fields and own != name), "")
    return read_prompt(fields[asked], asked) if asked else "", texts[name]


def make_annotated(fields: Mapping[str, Any], field: str, marks: Sequence[Mark] | None, annotators: Sequence[str]) -> list[Made]:
    """One annotated answer; `fields` the task's."""
    prompt, text = find_task(fields, field)
    answer = annotate(text if isinstance(prompt, str) else make_assistant_turn(text), marks, annotators)
    columns = {name: to_float(value) for name, value in fields.items() if isinstance(value, Real)}
    return [Row(prompt=prompt, answers={"answer": answer}, columns=columns)]


def doccano(row: Reading) -> list[Made]:
    """{text, label (or labels): [[start, end, name]]}."""
    column = "label" if "label" in row else "labels"
    marks = [_triple(one, column) for one in row[column]]
    return make_annotated({name: row[name] for name in (*PROMPTS, "text") if name in row}, "text", marks, name_annotator(row))


def _triple(item: Any, column: str) -> Mark:
    if not (isinstance(item, list) and len(item) == 3 and isinstance(item[0], int) and isinstance(item[1], int)):
        raise DataError(f"column {column!r}: expected [start, end, name], found {item!r:.80}")
    return Mark(item[0], item[1], label_value(str(item[2])), aspect=str(item[2]))


def doccano_entities(row: Reading) -> list[Made]:
    """{text, entities: [{start_offset, end_offset, label}], relations}: doccano's export with relations, which are not read."""
    marks = [Mark(one["start_offset"], one["end_offset"], label_value(str(one["label"])), aspect=str(one["label"])) for one in row["entities"]]
    return make_annotated({name: row[name] for name in (*PROMPTS, "text") if name in row}, "text", marks, name_annotator(row))


def name_annotator(row: Reading) -> list[str]:
    """Who marked the answer, where the column `annotator` names them."""
    person = read_name(row.get("annotator"))
    return [person] if person else []


def is_triples(cell: Any) -> bool:
    """Whether a cell is a list of [start, end, name]."""
    return isinstance(cell, list) and all(
        isinstance(one, list) and len(one) == 3 and isinstance(one[0], int) and isinstance(one[1], int) and isinstance(one[2], str) for one in cell
    )


def mqm(row: Reading) -> list[Made]:
    """{prompt, response, system, segment, spans_by_rater}: `system` is the system that translated, not a system prompt."""
    marks, raters = read_raters(row["spans_by_rater"], "spans_by_rater")
    text = read_text(row, "response")
    answers = {"answer": Answer(content=make_assistant_turn(text))} if not raters else {"answer": annotate(make_assistant_turn(text), marks, raters)}
    return [Row(prompt=read_prompt(row["prompt"], "prompt"), answers=answers, columns=read_numeric_columns(row))]


def inline_tags(row: Reading) -> list[Made]:
    """An answer with <v>…</v> around the passages that somebody marked as errors; the tags are taken out of the text.

    `severity` gives the value, `category` the aspect, and `rater` or `annotator` who it was, as in MQM's files; by default -1.
    """
    column = next(name for name in ANSWERS if name in row)
    text, places = strip_tags(read_text(row, column), column)
    value = label_value(str(row["severity"])) if isinstance(row.source.get("severity"), str) else -1.0
    aspect = str(row["category"]) if isinstance(row.source.get("category"), str) else ""
    person = read_name(row.get("rater")) or read_name(row.get("annotator"))
    marks = [Mark(start, end, value, aspect=aspect, annotator=person) for start, end in places]
    asked = {name: row[name] for name in PROMPTS if name in row and name != column}
    plain = {name: strip_tags(cell, name)[0] if isinstance(cell, str) else cell for name, cell in asked.items()}
    return make_annotated({**plain, column: text}, column, marks, [person] if person else [])


def has_tags(row: Reading) -> bool:
    """Whether the answer, or the source that it translates, has tags."""
    column = next(name for name in ANSWERS if name in row)
    return any(TAG.search(cell) for name in (column, "source") if isinstance(cell := row.source.get(name), str))


def strip_tags(text: str, column: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without tags, and the passages between them; tags that do not close each other are an error."""
    plain, at = "", 0
    places: list[tuple[int, int]] = []
    opened: list[int] = []
    for tag in TAG.finditer(text):
        plain += text[at : tag.start()]
        at = tag.end()
        if not tag[1]:
            opened.append(len(plain))
        elif opened:
            places.append((opened.pop(), len(plain)))
        else:
            raise DataError(f"column {column!r}: </v> without <v> at character {tag.start()}")
    if opened:
        raise DataError(f"column {column!r}: <v> without </v>")
    return plain + text[at:], places
