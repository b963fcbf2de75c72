"""Exports of Label Studio: JSON (a task with everybody's annotations) and JSON-MIN (a row for each annotation).

Source: the project's documentation of its task format, https://labelstud.io/guide/export.
"""

from collections.abc import Sequence
from typing import Any

from finegrain.data.annotations import Mark, read_name
from finegrain.data.convert.annotated import ANSWERS, PROMPTS, label_value, make_annotated, name_annotator
from finegrain.data.left_out import LeftOut, Made
from finegrain.data.reading import Reading
from finegrain.types import Json


def label_studio(row: Reading) -> list[Made]:
    """{data, annotations: [{completed_by, result}], predictions}: every person's regions; predictions are a model's and are not read."""
    annotations = [one for one in row["annotations"] if not one.get("was_cancelled")]
    if not annotations:
        return [LeftOut.NOT_ANNOTATED]
    marks: list[Mark] = []
    people: list[str] = []
    fields: set[str] = set()
    for number, one in enumerate(annotations):
        person = _who(one.get("completed_by"), number)
        people.append(person)
        own, named, others = _regions(one.get("result") or (), person)
        marks += own
        fields |= named
        row.ignored += others
    if row.source.get("predictions"):
        row.ignored.append("predictions")
    return make_annotated(row["data"], next(iter(fields)) if len(fields) == 1 else "", marks, people)


def _who(person: Any, number: int) -> str:
    """The annotator of an annotation: a number, an address, or an object with either."""
    if isinstance(person, dict):
        person = person.get("email") or person.get("id")
    return read_name(person) or f"annotation {number + 1}"


def _regions(result: Sequence[Json], person: str) -> tuple[list[Mark], set[str], list[str]]:
    """Marks of an annotation's text regions, the names of what they mark, and the kinds of other results, which are not read."""
    marks: list[Mark] = []
    named: set[str] = set()
    others: list[str] = []
    for one in result:
        value = one.get("value") or {}
        labels = value.get("labels") or value.get("hypertextlabels")
        if not labels:
            others.append(f"results of type {one.get('type')}")
            continue
        named.add(str(one.get("to_name", "")))
        marks += _region(value, labels, person)
    return marks, named, others


def _region(value: Json, labels: Sequence[Any], person: str) -> list[Mark]:
    """A mark for each label of a region; regions of HTML, whose start is a place in a tree, have global offsets or words."""
    offsets = value.get("globalOffsets") or value
    start, end = offsets.get("start"), offsets.get("end")
    if not (isinstance(start, int) and isinstance(end, int)) or "startOffset" in offsets:
        start = end = None
    quote = str(value.get("text") or "")
    return [Mark(start, end, label_value(str(label)), aspect=str(label), annotator=person, quote=quote) for label in labels]


def label_studio_min(row: Reading) -> list[Made]:
    """JSON-MIN: the task's fields beside the regions under the name of the labels, one row for each annotation."""
    column = regions_column(row)
    marks = [mark for value in (row[column] if column else ()) for mark in _region(value, value.get("labels") or (), read_name(row.get("annotator")))]
    fields = {name: row[name] for name in (*PROMPTS, *ANSWERS) if name in row and name != column}
    return make_annotated(fields, "", marks, name_annotator(row))


def regions_column(row: Reading) -> str:
    """The column of a JSON-MIN row that holds regions of text; empty where there is none."""
    for name in row:
        cell = row.source[name]
        if isinstance(cell, list) and cell and all(isinstance(one, dict) and {"start", "end", "labels"} <= one.keys() for one in cell):
            return name
    return ""
