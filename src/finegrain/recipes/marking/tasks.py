"""The tasks of the page: prompts with the answers that stand side by side, without a hint of which one the data prefer."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from finegrain.data.answer_text import split_turn
from finegrain.data.findings import Findings
from finegrain.data.gate.biases import BiasSample
from finegrain.data.gate.keeper import convert, find_common_format
from finegrain.data.gate.settings import Gate
from finegrain.data.left_out import select_examples
from finegrain.data.load import load_text, make_gate_report
from finegrain.data.read import read
from finegrain.data.records import Row
from finegrain.data.shapes import find_own_shape
from finegrain.data.sources import parse_sources
from finegrain.data.unlabelled import read_sample_rows
from finegrain.errors import DataError
from finegrain.recipes.marking.content import digest_text, hidden_parts, marked_text, unshift_spans, write_content
from finegrain.recipes.score_files.answers import are_samples
from finegrain.types import CharSpan, Json

Suggestions = dict[tuple[int, int, float], Json]
"""By start, end and value: what else is known of a suggested span (aspect, annotator, score)."""


@dataclass(kw_only=True)
class TaskAnswer:
    """One answer on the page."""

    id: str
    """Row and role, as `finegrain score` names answers; of an answer in several pairs the first."""
    content: Any
    """As exported: a string or messages."""
    text: str
    """What people mark."""
    before: int
    """Characters of `text` before the answer itself: what the format puts between prompt and answer."""
    whole: Any
    """The content as read, to which scores refer."""
    hidden: list[str]
    """Reasoning and calls."""
    columns: dict[str, float] = field(default_factory=dict)
    """Numbers of the row, of answers that are rows of their own."""
    suggestions: Suggestions = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    """Every name of this answer."""

    @property
    def digest(self) -> str:
        """Of the text."""
        return digest_text(self.text)


@dataclass(frozen=True, kw_only=True)
class TaskPair:
    """A preference of the data between two answers of a task."""

    chosen: int
    rejected: int
    columns: Mapping[str, float]


@dataclass(kw_only=True)
class Task:
    """One prompt."""

    row: int
    """The first row it comes from."""
    prompt: Any
    """As exported."""
    shown: str | list[tuple[str, str]]
    """For people: a text, or roles with their texts."""
    tools: str
    answers: list[TaskAnswer] = field(default_factory=list)
    pairs: list[TaskPair] = field(default_factory=list)

    @property
    def key(self) -> str:
        """A name that no other task has."""
        return self.answers[0].id


def load_marked_rows(source: str, limit: int | None, gate: Gate) -> tuple[list[tuple[int, Row]], Json]:
    """The rows to be annotated with their numbers, and the report of the gate; of rows {prompt, responses} what could not be read."""
    if len(parse_sources(source)) == 1 and are_samples(source, limit):
        rows, findings = read(source, limit), Findings()
        made = [(number, row) for number, _, row in read_sample_rows(rows, findings, 1)]
        facts = {"source": source, "sha256": rows.sha256(), "format": "samples", "shape": "samples", "rows": rows.count, "examples_left": len(made)}
        report = make_gate_report(facts, findings, BiasSample(0))
    else:
        loaded = load_text(source, limit=limit, gate=gate)
        made, report = loaded.rows, loaded.gate
    if not made:
        raise DataError(f"{source}: none of {report['rows']} rows has an answer")
    return made, report


def make_tasks(rows: Iterable[tuple[int, Row]], together: int) -> list[Task]:
    """Answers to the same prompt stand together: those of one row always, of several rows up to so many, of rows without a prompt never."""
    tasks: list[Task] = []
    opened: dict[str, Task] = {}
    seen: dict[str, int] = {}
    for number, row in rows:
        name = repr((row.prompt, row.tools) if row.prompt else number)
        task = opened.get(name)
        made = [_answer(number, row, role, seen) for role in row.answers]
        if task is None or (task.row != number and len(task.answers) + _count_new(task, made) > together):
            task = opened[name] = Task(row=number, prompt=write_content(row.prompt), shown=_shown(row), tools=row.tools)
            tasks.append(task)
        places = [_place(task, one) for one in made]
        if "chosen" in row.answers:
            task.pairs.append(TaskPair(chosen=places[0], rejected=places[1], columns=row.columns))
        else:
            for place in places:
                task.answers[place].columns |= row.columns
    return [_shuffled(task) for task in tasks]


def _answer(number: int, row: Row, role: str, seen: dict[str, int]) -> TaskAnswer:
    name = f"{number}/{role}"
    seen[name] = seen.get(name, 0) + 1
    own = name if seen[name] == 1 else f"{name}/{seen[name]}"
    answer = row.answers[role]
    content = row.glue + answer.content if isinstance(answer.content, str) else answer.content
    before = len(row.glue) if isinstance(content, str) else 0
    made = TaskAnswer(
        id=own,
        content=write_content(content),
        text=marked_text(content),
        before=before,
        whole=answer.content,
        hidden=hidden_parts(content),
        ids={own},
    )
    suggest_spans(made, answer.spans or ())
    return made


def suggest_spans(answer: TaskAnswer, spans: Sequence[CharSpan], **known: Any) -> None:
    """Adds spans over the whole text of an answer to what is suggested; each once."""
    for span in unshift_spans(spans, answer.whole):
        if span.value:
            place = (span.start + answer.before, span.end + answer.before, span.value)
            said = {name: text for name, text in (("aspect", span.aspect), ("annotator", span.annotator)) if text}
            answer.suggestions[place] = {**answer.suggestions.get(place, {}), **said, **known}


def _count_new(task: Task, made: Sequence[TaskAnswer]) -> int:
    return sum(all(one.content != other.content for other in task.answers) for one in made)


def _place(task: Task, made: TaskAnswer) -> int:
    """Where the answer stands in the task; an answer in several pairs stands there once."""
    for place, other in enumerate(task.answers):
        if other.content == made.content:
            other.ids |= made.ids
            other.suggestions |= made.suggestions
            return place
    task.answers.append(made)
    return len(task.answers) - 1


def _shuffled(task: Task) -> Task:
    """The same task with its answers in the order of their digests, which says nothing of the data's preference."""
    order = sorted(range(len(task.answers)), key=lambda place: task.answers[place].digest)
    new = {old: place for place, old in enumerate(order)}
    task.answers = [task.answers[old] for old in order]
    task.pairs = [TaskPair(chosen=new[pair.chosen], rejected=new[pair.rejected], columns=pair.columns) for pair in task.pairs]
    return task


def _shown(row: Row) -> str | list[tuple[str, str]]:
    return row.prompt if isinstance(row.prompt, str) else [(turn.role, split_turn(turn).text()) for turn in row.prompt]


def digest_tasks(tasks: Sequence[Task]) -> str:
    """What identifies the texts of a page, under which a browser keeps the work."""
    joined = "\n".join(f"{answer.id} {answer.digest}" for task in tasks for answer in task.answers)
    prompts = "\n".join(digest_text(repr(task.prompt)) for task in tasks)
    return hashlib.sha256(f"{joined}\n\n{prompts}".encode()).hexdigest()


def find_changed(tasks: Sequence[Task]) -> list[str]:
    """Names of answers whose exported rows would be read as other texts than the page shows, alone or in a pair of their task."""
    changed: dict[str, None] = {}
    for task in tasks:
        rows = combinations(task.answers, 2) if task.pairs else ((answer,) for answer in task.answers)
        changed |= {answer.id: None for answers in rows if not _reads_back(task, answers) for answer in answers}
    return list(changed)


def _reads_back(task: Task, answers: Sequence[TaskAnswer]) -> bool:
    """Reads the answers as a row of their own."""
    contents = dict(zip(("completion",) if len(answers) == 1 else ("chosen", "rejected"), (one.content for one in answers), strict=True))
    row = {"prompt": task.prompt, **({"tools": task.tools} if task.tools else {}), **contents}
    try:
        form = find_common_format([("", row)])
        (made,) = select_examples(convert(form, find_own_shape(form), row))
    except (DataError, ValueError):
        return False
    return write_content(made.prompt) == task.prompt and [write_content(one.content) for one in made.answers.values()] == list(contents.values())
