"""Rows that the page exported, read back: who marked which answer how, and whom they prefer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from finegrain.data.read import read
from finegrain.errors import DataError
from finegrain.recipes.marking.content import digest_prompt, digest_text, marked_text, read_content
from finegrain.types import Json

ROLES = {"chosen": "chosen_spans", "rejected": "rejected_spans", "answer": "spans"}
"""The column of spans of each role."""
VERSION = 1
"""Of the record `mark` in an exported row."""


class AnswerKey(NamedTuple):
    """What identifies an answer: its name in the data and the digest of its text."""

    id: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class AnswerMarks:
    """One person's marks on one answer."""

    annotator: str
    spans: tuple[Json, ...]
    notes: tuple[Json, ...]
    saved: str
    """When the row was exported, ISO 8601 in UTC."""
    done: bool
    """Whether the person had finished the prompt."""
    place: str
    """File and line."""

    def same(self, other: "AnswerMarks") -> bool:
        """Whether both say the same."""
        return self.spans == other.spans and self.notes == other.notes


@dataclass(frozen=True, kw_only=True)
class ExportedRow:
    """One row of an export."""

    place: str
    file: str
    line: Json
    """As it stands in the file."""
    data: str
    """Digest of the page's data."""
    keys: Mapping[str, AnswerKey]
    """By role; the digest is that of the text in the row."""
    prompt: str
    """Digest of the prompt in the row."""
    recorded: Mapping[str, str]
    """By role, the digest that the page wrote."""
    lengths: Mapping[str, int]
    """By role, characters of the text."""
    marks: Mapping[str, Sequence[AnswerMarks]]
    """By role; several people where the file was joined before, nobody where the answer was not annotated."""
    votes: Mapping[str, int]
    """Of a pair, by person: 1 where chosen is better, -1 where rejected is, 0 for equal."""
    preferences: Mapping[str, Json]
    """Of a single answer, by person: the order of the answers to its prompt."""


def read_export(file: Path) -> Iterator[ExportedRow]:
    """The rows of one export."""
    for where, raw in read(str(file)).rows:
        try:
            yield _row(file, where, {name: raw[name] for name in raw})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{where}: expected a row exported by finegrain mark ({type(error).__name__}: {error})") from error


def _row(file: Path, where: str, line: Json) -> ExportedRow:
    record = line["mark"]
    if record["version"] != VERSION:
        raise ValueError(f"version {record['version']!r:.20} of the record 'mark', this finegrain reads version {VERSION}")
    answers = record["answers"]
    if set(answers) not in ({"chosen", "rejected"}, {"answer"}):
        raise ValueError(f"answers under {', '.join(map(str, answers))}")
    names = {role: "completion" if role == "answer" else role for role in answers}
    texts = {role: marked_text(read_content(line[name], name)) for role, name in names.items()}
    name = str(line.get("annotator") or file)
    saved, done = str(record.get("saved", "")), bool(record.get("done"))
    marks = {role: list(_marks(line.get(ROLES[role]), answers[role], name, saved, done, where)) for role in answers}
    return ExportedRow(
        place=where,
        file=str(file),
        line=line,
        data=str(record["data"]),
        keys={role: AnswerKey(str(answers[role]["id"]), digest_text(texts[role])) for role in answers},
        prompt=digest_prompt(line["prompt"]),
        recorded={role: str(answers[role]["sha256"]) for role in answers},
        lengths={role: len(text) for role, text in texts.items()},
        marks=marks,
        votes=_votes(line, record, name),
        preferences=_preferences(line, record, name),
    )


def _marks(spans: Any, record: Json, name: str, saved: str, done: bool, place: str) -> Iterator[AnswerMarks]:
    """The marks of one person, or of everybody in a file that was joined before."""
    if spans is None:
        return
    people = [str(one) for one in record["annotators"]] if "annotators" in record else [name]
    for person in people:
        own = tuple(_span(one, person) for one in spans if len(people) == 1 or one.get("annotator") == person)
        notes = tuple({**one, "annotator": person} for one in record.get("notes", ()) if len(people) == 1 or one.get("annotator") == person)
        yield AnswerMarks(annotator=person, spans=own, notes=notes, saved=saved, done=done, place=place)


def _span(span: Json, person: str) -> Json:
    start, end, value = span["start"], span["end"], span["value"]
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(value, int | float) and math.isfinite(value)):
        raise ValueError(f"a span {span!r:.80}")
    known: Json = {name: span[name] for name in ("std", "aspect") if name in span}
    return {"start": start, "end": end, "value": value, **known, "annotator": person}


def _votes(line: Json, record: Json, name: str) -> Mapping[str, int]:
    if "votes" in record:
        return {str(person): int(vote) for person, vote in record["votes"].items()}
    preference = record.get("preference") or {}
    return {name: 0 if line.get("tie") else 1} if preference.get("by") == "person" and "rejected" in line else {}


def _preferences(line: Json, record: Json, name: str) -> Mapping[str, Json]:
    if "preferences" in record:
        return {str(person): dict(preference) for person, preference in record["preferences"].items()}
    preference = record.get("preference") or {}
    return {name: {part: preference[part] for part in ("order", "equal")}} if preference.get("by") == "person" and "rejected" not in line else {}
