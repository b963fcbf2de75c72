"""Exports of Argilla: records with span questions of its versions 1 and 2, as objects or as a table, and records of token classification.

Source: the project's reference of records, responses and span questions, https://docs.argilla.io.
"""

from typing import Any

from finegrain.data.annotations import Mark, read_name
from finegrain.data.convert.annotated import ANSWERS, PROMPTS, label_value, make_annotated
from finegrain.data.left_out import LeftOut, Made
from finegrain.data.reading import Reading
from finegrain.types import Json


def argilla(row: Reading) -> list[Made]:
    """{fields, responses, suggestions}: span questions of Argilla 2 (responses by question) and of 1 (responses by user)."""
    marks: list[Mark] = []
    people: list[str] = []
    for number, (person, question, value) in enumerate(_responses(row)):
        own = person or f"user {number + 1}"
        if is_span_answer(value):
            people.append(own)
            marks += [_argilla_span(one, own) for one in value]
        else:
            row.ignored.append(f"answers to {question}")
    if row.source.get("suggestions"):
        row.ignored.append("suggestions")
    return make_annotated(row["fields"], "", marks, list(dict.fromkeys(people))) if people else [LeftOut.NOT_ANNOTATED]


def _responses(row: Reading) -> list[tuple[str, str, Any]]:
    """(user, question, value) of every submitted answer."""
    responses = row["responses"]
    if isinstance(responses, dict):
        return [
            (read_name(one.get("user_id")), question, one.get("value"))
            for question, answers in responses.items()
            for one in answers or ()
            if one.get("status", "submitted") == "submitted"
        ]
    return [
        (read_name(one.get("user_id")), question, (answer or {}).get("value"))
        for one in responses or ()
        if one.get("status", "submitted") == "submitted"
        for question, answer in (one.get("values") or {}).items()
    ]


def _argilla_span(span: Json, person: str) -> Mark:
    label = str(span.get("label") or "")
    return Mark(span["start"], span["end"], label_value(label), aspect=label, annotator=person, quote=str(span.get("text") or ""))


def is_span_answer(value: Any) -> bool:
    """Whether the answer to a question is a list of spans; an empty list is one that marks nothing."""
    return isinstance(value, list) and all(isinstance(one, dict) and {"start", "end"} <= one.keys() for one in value)


def argilla_tokens(row: Reading) -> list[Made]:
    """Argilla's records of token classification: {text, annotation: [[name, start, end]], prediction}; a prediction is a model's."""
    if row["annotation"] is None:
        return [LeftOut.NOT_ANNOTATED]
    marks = [Mark(one[1], one[2], label_value(str(one[0])), aspect=str(one[0])) for one in row["annotation"]]
    if row.source.get("prediction"):
        row.ignored.append("prediction")
    person = read_name(row.get("annotation_agent"))
    return make_annotated({"text": row["text"]}, "text", marks, [person] if person else [])


def argilla_flat(row: Reading) -> list[Made]:
    """Argilla 2 as a table: the fields beside `<question>.responses` and `<question>.responses.users`."""
    marks: list[Mark] = []
    people: list[str] = []
    for name in [own for own in row if own.endswith(".responses")]:
        users, states = row.get(f"{name}.users") or (), row.get(f"{name}.status") or ()
        for number, value in enumerate(row[name] or ()):
            person = read_name(users[number]) if number < len(users) else f"user {number + 1}"
            if number < len(states) and states[number] != "submitted":
                continue
            if is_span_answer(value):
                people.append(person)
                marks += [_argilla_span(one, person) for one in value]
            else:
                row.ignored.append(f"answers to {name.removesuffix('.responses')}")
    fields = {name: row[name] for name in (*PROMPTS, *ANSWERS) if name in row}
    return make_annotated(fields, "", marks, list(dict.fromkeys(people))) if people else [LeftOut.NOT_ANNOTATED]


def has_span_responses(row: Reading) -> bool:
    """Whether a column `<question>.responses` holds answers of spans."""
    return any(
        name.endswith(".responses") and isinstance(cell := row.source[name], list) and bool(cell) and all(map(is_span_answer, cell)) for name in row
    )
