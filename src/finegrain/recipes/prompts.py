"""Prompts of a data file, each once, and rewards of what a model answers to them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from finegrain.data.findings import Findings
from finegrain.data.gate.settings import Gate, Stopping
from finegrain.data.questions import Question, Questions
from finegrain.data.records import Answer, Example, Turn
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.scoring.records import Candidates, Reward


@runtime_checkable
class PromptSettings(Protocol):
    """Which prompts a command reads."""

    @property
    def data(self) -> str | None:
        """The rows."""

    @property
    def limit(self) -> int | None:
        """How many of them are read."""

    @property
    def max_length(self) -> int:
        """Longest prompt in tokens."""

    @property
    def gate(self) -> Gate:
        """What is done about rows that cannot be used."""


def distinct_prompts(settings: PromptSettings, tokenizer: Any) -> Iterator[tuple[Question, Example]]:
    """Every distinct prompt of the data once, with its tokens."""
    assert settings.data is not None
    questions = Questions(settings.data, settings.limit)
    how, decide = Tokenise(max_length=settings.max_length), Stopping(settings.gate)
    seen: set[bytes] = set()
    for question in questions():
        found = list(tokenise([(question.row, question.made)], tokenizer, how, Findings(), decide))
        if found and found[0].prompt.tobytes() not in seen:
            seen.add(found[0].prompt.tobytes())
            yield question, found[0]


def score_answers(reward: Reward, answered: Sequence[tuple[Question, str]]) -> list[float | None]:
    """The score of an answer to each question; None for an answer that has none."""
    found = reward.score([_candidates(question, text) for question, text in answered])
    scores = [one.get("answer") for one in found]
    return [None if one is None else float(one.answer.mean) for one in scores]


def _candidates(question: Question, text: str) -> Candidates:
    """The answer in the form of the prompt: a string, or a turn of the conversation."""
    content = text if isinstance(question.made.prompt, str) else (Turn("assistant", text),)
    return Candidates(row=question.row, made=replace(question.made, answers={"answer": Answer(content=content)}, columns={}), columns=question.raw)
