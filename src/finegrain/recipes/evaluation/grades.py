"""Scores of the answers of problems by a reward; what cannot be scored is counted."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from finegrain.data.annotators import AnnotatedAnswer
from finegrain.data.findings import Findings
from finegrain.data.records import Answer
from finegrain.evaluate.marked_tokens import MarkedAnswer
from finegrain.ops.aggregate import OfOneAnswer, aggregate_answer
from finegrain.recipes.evaluation.problems import Problem
from finegrain.scoring.marked import join_marks
from finegrain.scoring.records import Candidates, Reward, Scores

BATCHES = (1, 512, 8192)
"""Tokens of the batches in which scores are compared: every answer alone, a few at once, and many at once."""


class Grade(NamedTuple):
    """Scores of the answers of one problem."""

    means: np.ndarray
    stds: np.ndarray | None
    attributes: Mapping[str, np.ndarray] = {}
    """Ratings of the answers by name, of a reward that has several."""
    marks: Sequence[MarkedAnswer] = ()
    """The annotated answers with the scores of their tokens, of a reward that scores every token."""


def grade_problems(reward: Reward, aggregate: OfOneAnswer, problems: Sequence[Problem], findings: Findings) -> list[Grade | None]:
    """A grade per problem; None where one of its answers has no score."""
    read = reward.read([Candidates(row=one.row, made=one.made, columns=one.raw) for one in problems], findings)
    alone = [one.taking({"answer": role}) for one in read if one is not None for role in one.roles]  # problems may have different numbers of answers
    scores = iter([found["answer"] for found in reward.score(alone)])
    grades: list[Grade | None] = []
    for place, one in enumerate(read):
        own = [] if one is None else [next(scores) for _ in one.roles]
        grade = _grade(aggregate, [score for score in own if score is not None], len(own))
        grades.append(None if grade is None else grade._replace(marks=_marks(own, problems[place].annotated)))
        if own and grades[-1] is None:
            findings.drop("not_judged", place)
    return grades


def _grade(aggregate: OfOneAnswer, scores: Sequence[Scores], wanted: int) -> Grade | None:
    if not scores or len(scores) < wanted:
        return None
    stds = [float(one.answer.std) for one in scores if one.answer.std is not None]
    means = np.array([aggregate_answer(aggregate, one.answer) for one in scores], dtype=float)
    attributes = {name: np.array([one.attributes[name] for one in scores]) for name in scores[0].attributes}
    return Grade(means, np.array(stds) if len(stds) == len(means) else None, attributes)


def _marks(scores: Sequence[Scores | None], answers: Sequence[Answer]) -> list[MarkedAnswer]:
    """The annotated answers, where every token of them has a score."""
    return [
        join_marks(one.response, AnnotatedAnswer(own.spans, own.annotators, one.response.offsets), one.tokens, one.token_aspects)
        for one, own in zip(scores, answers, strict=True)
        if one is not None and own.spans is not None and one.tokens is not None and one.response is not None and one.segments is None
    ]


def in_other_batches(reward: Reward) -> list[Reward]:
    """The same reward in other batches, those that differ."""
    found: list[Reward] = []
    for tokens in BATCHES:
        other = reward.with_micro_batch(tokens)
        found += [] if other in found else [other]
    return found
