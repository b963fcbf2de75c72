"""Scored pairs built in code: reward models of any honesty, in love with length or not."""

from dataclasses import replace

import numpy as np

from finegrain.report.pairs import ExaminedAnswer, ExaminedPair
from tests.report.runs import pairs


def scored(count: int = 120, *, claims: float = 1.0, per_token: float = 0.0, std: bool = True, seed: int = 0) -> list[ExaminedPair]:
    """Pairs whose labels follow true log-odds of which the score difference claims `claims` times as much, and `per_token` for every token."""
    rng = np.random.default_rng(seed)
    found = []
    for pair in pairs(count, seed=seed):
        odds = float(rng.normal(0, 1.5))
        difference = claims * (odds if rng.random() < 1 / (1 + np.exp(-odds)) else -odds)
        scores = {"chosen": difference / 2, "rejected": -difference / 2}
        answers = {role: _judged(answer, scores[role] + per_token * int(answer.mask.sum()), rng, std) for role, answer in pair.answers.items()}
        found.append(replace(pair, answers=answers, held_out=pair.row % 4 != 0))
    return found


def _judged(answer: ExaminedAnswer, score: float, rng: np.random.Generator, std: bool) -> ExaminedAnswer:
    count = len(answer.mask)
    reward = rng.normal(size=count)
    return replace(
        answer,
        before=None,
        after=None,
        reward=reward,
        reward_std=rng.gamma(2.0, 0.5, count) if std else None,
        segment=np.arange(count) // 4,
        score=score,
        score_std=float(rng.gamma(2.0, 0.5)) if std else None,
    )
