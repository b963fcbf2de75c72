"""Examples of a conversation and its answers, as most public formats need them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from finegrain.data.records import Answer, Row, Turn
from finegrain.types import CharSpan

Prompt = tuple[Turn, ...]


def make_pair(prompt: Prompt, chosen: str, rejected: str, columns: Mapping[str, float]) -> Row:
    """One pair of assistant turns after a conversation."""
    answers = {"chosen": Answer(content=make_assistant_turn(chosen)), "rejected": Answer(content=make_assistant_turn(rejected))}
    return Row(prompt=prompt, answers=answers, columns=dict(columns))


def make_single(prompt: Prompt, answer: str, columns: Mapping[str, float], spans: Sequence[CharSpan] | None = None) -> Row:
    """One assistant turn after a conversation."""
    marked = None if spans is None else list(spans)
    return Row(prompt=prompt, answers={"answer": Answer(content=make_assistant_turn(answer), spans=marked)}, columns=dict(columns))


def make_assistant_turn(text: str) -> tuple[Turn, ...]:
    """A text as a turn of the assistant."""
    return (Turn("assistant", text),)


def replace_answers(row: Row, answers: dict[str, Answer], columns: Mapping[str, float]) -> Row:
    """The same prompt with other answers and columns."""
    return replace(row, answers=answers, columns=dict(columns))
