"""The null control of `finegrain eval compare`: a reward fitted to two samples of one policy, on held-out pairs of the same kind."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from finegrain.errors import DataError
from finegrain.evaluate.reward_comparison import null_holds
from finegrain.evaluate.tables import format_share
from finegrain.recipes.evaluation.scored_answers import ScoredAnswer, few, read_scores
from finegrain.types import Json

SIDE = re.compile(r"(?P<row>.*)/(?P<role>chosen|rejected)(?P<number>/\d+)?", re.DOTALL)
"""The name that `finegrain score` gives to an answer of a pair."""


class PairScores(NamedTuple):
    """Scores of pairs."""

    chosen: Float[np.ndarray, " N"]
    rejected: Float[np.ndarray, " N"]
    unscored: int
    """Pairs of which a score is missing."""
    identical: int
    """Pairs of one answer twice, which tell nothing."""


def null_control(file: Path) -> Json:
    """Whether a reward fitted where there is nothing to find found nothing."""
    found = join_pairs(file, read_scores(file))
    if not len(found.chosen):
        raise DataError(f"{file}: no pair of two different answers has both scores, so nothing says whether the null holds")
    share, holds = null_holds(found.chosen, found.rejected)
    accuracy = f"a reward fitted to two samples of one policy ranks {format_share(share)} of {share.rows} held-out pairs"
    found_something = f"the null does not hold: {accuracy}, and 1/2 is outside; the fit finds differences that are not there"
    sentence = f"the null holds: {accuracy}, and the interval has 1/2 in it" if holds else found_something
    left_out = {"unscored": found.unscored, "identical": found.identical}
    return {"file": str(file), "holds": holds, "accuracy": share.as_json(), **left_out, "sentence": sentence}


def join_pairs(file: Path, answers: Mapping[str, ScoredAnswer]) -> PairScores:
    """Chosen and rejected of each pair; raises DataError where an answer stands alone."""
    pairs: dict[tuple[str, str | None], dict[str, ScoredAnswer]] = {}
    for name, answer in answers.items():
        side = SIDE.fullmatch(name)
        if side is None:
            raise DataError(
                f"{file}: {name!r} is no answer of a pair; the null is of pairs {{prompt, chosen, rejected}}, both sampled from one policy"
            )
        pairs.setdefault((side["row"], side["number"]), {})[side["role"]] = answer
    alone = [row for (row, _), pair in pairs.items() if len(pair) < 2]
    if alone:
        raise DataError(f"{file}: {len(alone)} pairs have one side only (rows {few(alone)}); the null needs both")
    differing = [pair for pair in pairs.values() if pair["chosen"].response != pair["rejected"].response]
    scored = [(pair["chosen"].score, pair["rejected"].score) for pair in differing]
    kept = np.array([pair for pair in scored if None not in pair], dtype=float).reshape(-1, 2)
    return PairScores(kept[:, 0], kept[:, 1], unscored=len(scored) - len(kept), identical=len(pairs) - len(differing))
