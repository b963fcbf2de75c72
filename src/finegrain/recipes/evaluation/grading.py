"""Every problem of `finegrain eval` graded by every reward, the rewards combined, and a sample scored again in other batches."""

from collections.abc import Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from finegrain.commands.eval import EvalSettings
from finegrain.data.findings import Findings
from finegrain.errors import UsageError
from finegrain.evaluate.ensemble import combine_members
from finegrain.evaluate.suites import Item
from finegrain.ops.aggregate import OfOneAnswer
from finegrain.recipes.evaluation.grades import Grade, grade_problems, in_other_batches
from finegrain.recipes.evaluation.problems import Problem, ProblemSet
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Reward
from finegrain.scoring.runtime import open_runtime
from finegrain.scoring.sources import RewardOptions, is_text_source
from finegrain.terminal import write_line
from finegrain.types import Json

SAMPLE = 16
"""Problems scored again in other batches."""


class GradedProblems(NamedTuple):
    """Scores of every problem by the rewards."""

    grades: list[Grade | None]
    """Of several rewards the combined one; None where a problem could not be scored."""
    batches: Json
    """The largest difference between batches."""
    read: list[Json]
    """How each reward found segments or steps."""


def grade_set(settings: EvalSettings, problems: ProblemSet) -> GradedProblems:
    """Scores by every reward, and again in other batches."""
    members: list[list[Grade | None]] = []
    differences: list[Json] = []
    read: list[Json] = []
    for reward in _rewards(settings):
        grades = grade_problems(reward, settings.aggregate, problems.problems, problems.findings)
        members.append(grades)
        read.append(reward.facts())
        for line in reward.describe():
            write_line(line)
        differences.append(_batches(reward, settings.aggregate, problems.problems, grades))
    if len(members) == 1:
        return GradedProblems(members[0], differences[0], read)
    batches = max(differences, key=lambda one: one["largest_difference"] or 0.0)
    return GradedProblems(_combined(members, [one.item for one in problems.problems], settings), batches, read)


def _rewards(settings: EvalSettings) -> Sequence[Reward]:
    """Every reward opened; policies against a reference are one, whose mean is theirs."""
    options = RewardOptions(
        runtime=cache(partial(open_runtime, settings.device, settings.dtype)),
        max_length=settings.max_length,
        reference=settings.reference,
        beta=settings.beta,
        likelihood=settings.reference_free,
    )
    if settings.reference is None:
        return [open_reward(source, options) for source in settings.reward]
    if any(is_text_source(source) for source in settings.reward):
        raise UsageError("--reference is for policies; a function of your own has none")
    return [open_reward(settings.reward, options)]


def _combined(members: Sequence[Sequence[Grade | None]], items: Sequence[Item], settings: EvalSettings) -> list[Grade | None]:
    """Members standardised over all answers, then combined."""
    kept = [place for place in range(len(items)) if all(grades[place] is not None for grades in members)]
    if not kept:
        return [None] * len(items)
    sides: list[np.ndarray] = []
    for part in (lambda place: slice(0, items[place].right), lambda place: slice(items[place].right, None)):
        rows = [[grade.means[part(place)] for place in kept if (grade := grades[place]) is not None] for grades in members]
        sides.append(np.stack([np.concatenate(own) for own in rows]))
    good, bad = combine_members(sides[0], sides[1], settings.combiner)
    found: list[Grade | None] = [None] * len(items)
    at_good = at_bad = 0
    for place in kept:
        right, wrong = items[place].right, len(items[place].lengths) - items[place].right
        found[place] = Grade(np.concatenate([good[at_good : at_good + right], bad[at_bad : at_bad + wrong]]), None)
        at_good, at_bad = at_good + right, at_bad + wrong
    return found


def _batches(reward: Reward, aggregate: OfOneAnswer, problems: Sequence[Problem], grades: Sequence[Grade | None]) -> Json:
    """Largest difference of a score between the batches of the table and others."""
    kept = [place for place, grade in enumerate(grades) if grade is not None]
    sample = [kept[index] for index in np.unique(np.linspace(0, len(kept) - 1, min(SAMPLE, len(kept))).astype(int))] if kept else []
    before = {place: grade.means for place in sample if (grade := grades[place]) is not None}
    largest = None
    for other in in_other_batches(reward) if sample else ():
        again = grade_problems(other, aggregate, [problems[place] for place in sample], Findings())
        found = [float(np.abs(grade.means - before[place]).max()) for place, grade in zip(sample, again, strict=True) if grade is not None]
        largest = max([*found, largest or 0.0])
    return {"problems": len(sample), "largest_difference": largest}
