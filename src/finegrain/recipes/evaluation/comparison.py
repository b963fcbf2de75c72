"""`finegrain eval compare`: agreement between rewards that scored the same answers, between seeds of one reward, and with a null control."""

import json
import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from finegrain.commands.compare import CompareSettings
from finegrain.errors import DataError
from finegrain.evaluate.reward_comparison import canonicalise, compare, reward_distance, seed_agreement, spearman
from finegrain.files import write_new
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.stats import Interval
from finegrain.recipes.evaluation.null_control import null_control
from finegrain.recipes.evaluation.scored_answers import JoinedScores, join, read_scores
from finegrain.recipes.evaluation.table import print_comparison
from finegrain.runs import check_free
from finegrain.types import Json


def run_compare(settings: CompareSettings) -> dict[str, Any]:
    """Print a table on stderr; returns its numbers, which also go to --out."""
    if settings.out is not None:
        check_free(settings.out)
    result = compare_scores(settings)
    print_comparison(result)
    if settings.out is not None:
        write_new(settings.out, [json.dumps(result, allow_nan=False) + "\n"])
    return {**result, "out": None if settings.out is None else str(settings.out)}


def compare_scores(settings: CompareSettings) -> Json:
    """The whole result."""
    draw = Bootstrap(resamples=settings.resamples, seed=settings.seed)
    answers = [read_scores(file) for file in settings.scores]
    null = None if settings.null is None else null_control(settings.null)
    joined = join(settings.scores, answers)
    names = [str(file) for file in settings.scores]
    ranks, warnings = _ranks(names, joined)
    distances = [[_distance(joined, ranks, i, j) for j in range(len(names))] for i in range(len(names))]
    files = [
        {
            "file": name,
            "unscored": sum(one.score is None for one in own.values()),
            "truncated": sum(one.truncated for one in own.values()),
            "length": _length(joined.rewards[place], joined.lengths, draw),
        }
        for place, (name, own) in enumerate(zip(names, answers, strict=True))
    ]
    others = [
        {
            "file": names[place],
            **{name: _interval(share) for name, share in compare(joined.rewards[0], joined.rewards[place], draw).items()},
            "distance": distances[0][place],
        }
        for place in range(1, len(names))
    ]
    return {
        "reference": names[0],
        "answers": joined.rewards.shape[1],
        "prompts": len(np.unique(joined.prompts)),
        "left_out": joined.left_out,
        "files": files,
        "compared": others,
        "agreement": _agreement(names[1:], joined, distances) if len(names) > 2 else None,
        "null": null,
        "warnings": [*warnings, *_warnings(files, joined, null)],
    }


def _ranks(names: Sequence[str], joined: JoinedScores) -> tuple[list[bool], list[str]]:
    """Whether each reward tells answers of one prompt apart, and what is odd about rewards."""
    ranks, warnings = [], []
    for name, rewards in zip(names, joined.rewards, strict=True):
        try:
            canonicalise(rewards, joined.prompts)
            ranks.append(True)
        except DataError as error:
            ranks.append(False)
            warnings.append(f"{name} has no distance: {error}")
    same = [(a, b) for a, b in combinations(range(len(names)), 2) if np.array_equal(joined.rewards[a], joined.rewards[b])]
    return ranks, [*warnings, *(f"{names[a]} and {names[b]} hold the same scores: is it one reward twice?" for a, b in same)]


def _distance(joined: JoinedScores, ranks: Sequence[bool], a: int, b: int) -> float | None:
    """None where one of the two ranks nothing."""
    if not (ranks[a] and ranks[b]):
        return None
    return 0.0 if a == b else reward_distance(joined.rewards[a], joined.rewards[b], joined.prompts)


def _length(rewards: Float[np.ndarray, " N"], lengths: Float[np.ndarray, " N"], draw: Bootstrap) -> Json:
    """Rank correlation with the number of characters."""
    return _interval(draw(lambda rows: spearman(rewards[rows], lengths[rows]), np.zeros(len(rewards), dtype=int)))


def _agreement(names: Sequence[str], joined: JoinedScores, distances: Sequence[Sequence[float | None]]) -> Json:
    """Of every two rewards but the first."""
    table = seed_agreement(joined.rewards[1:])
    return {"files": list(names), "spearman": [[_number(one) for one in row] for row in table], "distance": [list(row[1:]) for row in distances[1:]]}


def _warnings(files: Sequence[Json], joined: JoinedScores, null: Json | None) -> list[str]:
    found = [f"{one['file']}: {one['truncated']} answers were cut before they were scored" for one in files if one["truncated"]]
    if joined.left_out:
        found.append(f"{joined.left_out} answers lack a score in a file and are left out of every number")
    return found if null is None or null["holds"] else [*found, null["sentence"]]


def _interval(share: Interval) -> Json:
    return share.as_json() | {"mean": _number(share.mean)}


def _number(value: Any) -> float | None:
    """A number that JSON has; None for one that does not exist, as the correlation with a constant."""
    return float(value) if math.isfinite(value) else None
