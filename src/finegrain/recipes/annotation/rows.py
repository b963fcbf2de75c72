"""What is asked of an answer, and a row written back as data: prompt, answers with everybody's spans, numbers, and the record of the annotation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from finegrain.data.annotations import WITH_RATERS
from finegrain.data.annotators import group_spans
from finegrain.data.answer_text import join_answer
from finegrain.data.conversations import ASSISTANT
from finegrain.data.records import Row, Text
from finegrain.recipes.marking.content import marked_text, unshift_spans, write_content
from finegrain.types import CharSpan, Json

PAIR = ("chosen", "rejected")
Note = tuple[str, str]
"""Kind of what could not be used of a reply, and a description that the next try is given."""


class CheckedReply(NamedTuple):
    """What a reply says."""

    value: Any
    notes: tuple[Note, ...] = ()
    """What had to be left out; another try is made for it, and the best reply counts."""


class Inquiry(NamedTuple):
    """One question to the server."""

    texts: Mapping[str, str]
    """By place of the prompt."""
    read: Callable[[Json], CheckedReply]
    """From the JSON of a reply; raises UnusableReply."""


class NotAsked(Exception):
    """A row that the task cannot be asked of; its text is the kind under which it is counted."""


@dataclass(frozen=True)
class Annotator:
    """Who annotates."""

    name: str
    record: Json
    """What every row says of how it was annotated."""


@runtime_checkable
class AnnotationTask(Protocol):
    """What a server is asked to do with a row."""

    @property
    def places(self) -> tuple[str, ...]:
        """Places of its prompt."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Places that every prompt of it must have."""

    @property
    def unanswered(self) -> str:
        """What becomes of an answer or a comparison without a usable reply."""

    @property
    def schema(self) -> Json:
        """JSON Schema of a reply."""

    def inquire(self, row: Row) -> list[Inquiry]:
        """The questions about a row, or NotAsked."""

    def write(self, row: Row, found: Sequence[Any], by: Annotator) -> list[Json]:
        """The rows to be written, from the values of the replies in the order of the questions; None: there was no usable one."""

    def summarise(self, lines: Sequence[Json]) -> Json:
        """Counts over all written rows."""


def mean_number(numbers: Sequence[float | int]) -> float | None:
    """The mean for a summary; None of nothing."""
    return round(sum(numbers) / len(numbers), 4) if numbers else None


def show_prompt(row: Row) -> str:
    """The prompt for a judge: a text, or turns with their speakers."""
    return join_answer(row.prompt)


def plain_answer(content: Text) -> str:
    """The text of an answer that is one plain turn; NotAsked for several turns, reasoning and calls, which a text alone cannot stand for."""
    if isinstance(content, str):
        return content
    if len(content) != 1 or content[0].role != ASSISTANT or content[0].more:
        raise NotAsked("not_one_plain_turn")
    return content[0].content


def write_start(row: Row) -> Json:
    """The columns before the answers."""
    return {"prompt": write_content(row.prompt), **({"tools": row.tools} if row.tools else {})}


def write_answer(row: Row, role: str) -> Any:
    """The answer as a cell; what stands between a string prompt and its answer belongs to it."""
    content = row.answers[role].content
    return row.glue + content if isinstance(content, str) else write_content(content)


def write_spans(row: Row, role: str, column: str, own: Sequence[CharSpan] | None, by: Annotator) -> Json:
    """The column of an answer's spans: the annotator's own (None: not annotated), by annotator beside those that the data have already.

    `own` counts the text that annotators see. Earlier spans of the same annotator are replaced.
    """
    answer = row.answers[role]
    shift = len(row.glue) if isinstance(answer.content, str) else 0
    if answer.spans is None:
        return {column: None if own is None else _as_json(own, shift, by.name)}
    before = group_spans(unshift_spans(answer.spans, answer.content), answer.annotators)
    raters = {name: _as_json(spans, shift, name) for name, spans in before.items()}
    return {column + WITH_RATERS: raters if own is None else {**raters, by.name: _as_json(own, shift, by.name)}}


def keep_spans(row: Row, role: str, column: str, by: Annotator) -> Json:
    """The spans that the data have of an answer; none where nobody looked."""
    return {} if row.answers[role].spans is None else write_spans(row, role, column, None, by)


def _as_json(spans: Sequence[CharSpan], shift: int, annotator: str) -> list[Json]:
    return [
        {
            "start": span.start + shift,
            "end": span.end + shift,
            "value": span.value,
            **({} if span.std is None else {"std": span.std}),
            **({"aspect": span.aspect} if span.aspect else {}),
            **({"annotator": annotator} if annotator else {}),
        }
        for span in spans
    ]


def shown_answer(row: Row, role: str) -> str:
    """The text of an answer that annotators see and that spans count."""
    return marked_text(row.answers[role].content)
