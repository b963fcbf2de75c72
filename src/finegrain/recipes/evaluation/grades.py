"""Scores of the answers of problems, by a model or by a function of the user's own; what cannot be scored is counted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from finegrain.data.findings import Findings
from finegrain.data.gate.settings import Gate, Stopping
from finegrain.data.records import Example
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.ops.aggregate import OfOneAnswer
from finegrain.recipes.evaluation.problems import Problem
from finegrain.scoring.aggregation import shown
from finegrain.scoring.function import Asked, UserReward
from finegrain.scoring.records import Judge
from finegrain.types import Json

EVERYTHING = Stopping(Gate(identical_after_truncation="keep"))
"""Nothing is dropped but what cannot be tokenised: two equal answers are a tie."""
BLOCK = 64


class Grade(NamedTuple):
    """Scores of the answers of one problem."""

    means: np.ndarray
    stds: np.ndarray | None
    attributes: Mapping[str, np.ndarray] = {}
    """Ratings of the answers by name, of a reward that has several."""


@runtime_checkable
class Grader(Protocol):
    """What scores answers."""

    def __call__(self, problems: Sequence[Problem], findings: Findings) -> list[Grade | None]:
        """A grade per problem; None where one of its answers has no score."""

    def facts(self) -> Json:
        """What a result must say of how answers were read; {} where there is nothing."""

    def words(self) -> list[str]:
        """The same for a person."""

    def other_batches(self) -> Sequence["Grader"]:
        """The same with other batches, for comparison."""


@dataclass(frozen=True)
class ModelGrader:
    """A judge with its tokenizer."""

    judge: Judge
    max_length: int
    aggregate: OfOneAnswer

    def __call__(self, problems: Sequence[Problem], findings: Findings) -> list[Grade | None]:
        """A grade per problem; None where it cannot be tokenised."""
        rows = ((place, one.made) for place, one in enumerate(problems))
        examples = list(tokenise(rows, self.judge.tokenizer, Tokenise(max_length=self.max_length), findings, EVERYTHING))
        alone = [one for example in examples for one in _single(example)]
        judged = iter([found["answer"] for found in self.judge(alone, ("answer",))] if alone else [])
        grades: list[Grade | None] = [None] * len(problems)
        for example in examples:
            found = [next(judged) for _ in example.responses]
            scores = [one.answer for one in found]
            attributes = {name: np.array([one.attributes[name] for one in found]) for name in found[0].attributes}
            stds = [float(score.std) for score in scores if score.std is not None]
            means = np.array([shown(self.aggregate, score) for score in scores])
            grades[example.row] = Grade(means, np.array(stds) if len(stds) == len(means) else None, attributes)
        return grades

    def facts(self) -> Json:
        """The judge's."""
        return self.judge.facts()

    def words(self) -> list[str]:
        """The judge's."""
        return self.judge.words()

    def other_batches(self) -> Sequence["Grader"]:
        """Every answer alone, a few at once, and many at once."""
        return [replace(self, judge=self.judge.plainly(tokens)) for tokens in (1, 512, 8192)]


@dataclass(frozen=True)
class FunctionGrader:
    """A function of the user's own."""

    function: UserReward
    block: int = BLOCK
    """Answers of one call."""

    def __call__(self, problems: Sequence[Problem], findings: Findings) -> list[Grade | None]:
        """A grade per problem; None where the function returned None for an answer."""
        asked = [Asked(one.row, one.made.prompt, answer.content, one.raw) for one in problems for answer in one.made.answers.values()]
        verdicts = iter([verdict for start in range(0, len(asked), self.block) for verdict in self.function(asked[start : start + self.block])])
        grades: list[Grade | None] = []
        for place, one in enumerate(problems):
            scores = [next(verdicts).score for _ in one.made.answers]
            if any(score is None for score in scores):
                findings.drop("not_judged", place)
                grades.append(None)
            else:
                grades.append(Grade(np.array(scores, dtype=float), None))
        return grades

    def facts(self) -> Json:
        """Nothing is known of it."""
        return {}

    def words(self) -> list[str]:
        """Nothing."""
        return []

    def other_batches(self) -> Sequence["Grader"]:
        """Every answer alone."""
        return [replace(self, block=1)]


def _single(example: Example) -> Iterator[Example]:
    """An example per answer, so that problems may have different numbers of them; the prompt is still computed once."""
    for response in example.responses.values():
        yield replace(example, responses={"answer": response}, spans={"answer": None}, token_rewards={"answer": None})
