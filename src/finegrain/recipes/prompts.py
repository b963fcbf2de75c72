"""Prompts of a data file, each once and the others counted, and rewards of what a model answers to them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from finegrain.data.findings import Findings
from finegrain.data.gate.settings import Gate, Stopping
from finegrain.data.questions import Question, Questions
from finegrain.data.records import Answer, Example, Turn
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.scoring.records import Candidates, Reward
from finegrain.types import Json

CUT = "prompt_truncated"
"""Finding: the prompt is longer than the rows may be, and lost its start."""


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


class DistinctPrompts:
    """Every distinct prompt of the data once, with its tokens, read again on every call; rows that give none are counted in the findings."""

    def __init__(self, settings: PromptSettings, tokenizer: Any, questions: Questions | None = None) -> None:
        assert settings.data is not None
        self._questions = questions or Questions(settings.data, settings.limit)
        self._tokenizer = tokenizer
        self._how, self._decide = Tokenise(max_length=settings.max_length), Stopping(settings.gate)
        self.findings = Findings()
        self._prompts = self._repeated = 0

    def __call__(self) -> Iterator[tuple[Question, Example]]:
        """In the order of the data."""
        self.findings = Findings()
        self._prompts = self._repeated = 0
        seen: set[bytes] = set()
        for question in self._questions():
            own = Findings()
            found = list(tokenise([(question.row, question.made)], self._tokenizer, self._how, own, self._decide))
            self._count(question.row, own)
            if found and found[0].prompt.tobytes() in seen:
                self._repeated += 1
            elif found:
                seen.add(found[0].prompt.tobytes())
                self._prompts += 1
                yield question, found[0]
        for kind, finding in self._questions.findings.by_kind.items():
            for row in finding.rows:
                self.findings.drop(kind, row, finding.example)

    def _count(self, row: int, own: Findings) -> None:
        """What dropped an example, and a prompt that was cut; what was cut of the data's answers does not matter here."""
        for kind in own.dropped():
            self.findings.drop(kind, row, own.by_kind[kind].example)
        if own.count(CUT):
            self.findings.add(CUT, row, "cut")

    def facts(self) -> Json:
        """Of the last reading: rows, prompts, examples whose prompt stands above, and what dropped the others."""
        counts = {"rows": self._questions.rows, "prompts": self._prompts, "repeated": self._repeated}
        return {**counts, "dropped": self.findings.dropped(), "findings": self.findings.as_json()}

    def messages(self) -> list[str]:
        """A line for each kind of finding."""
        return [f"prompts: {line}" for line in self.findings.messages()]


def score_answers(reward: Reward, answered: Sequence[tuple[Question, str]]) -> list[float | None]:
    """The score of an answer to each question; None for an answer that has none."""
    found = reward.score([_candidates(question, text) for question, text in answered])
    scores = [one.get("answer") for one in found]
    return [None if one is None else float(one.answer.mean) for one in scores]


def _candidates(question: Question, text: str) -> Candidates:
    """The answer in the form of the prompt: a string, or a turn of the conversation."""
    content = text if isinstance(question.made.prompt, str) else (Turn("assistant", text),)
    return Candidates(row=question.row, made=replace(question.made, answers={"answer": Answer(content=content)}, columns={}), columns=question.raw)
