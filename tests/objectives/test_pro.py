"""pro: worked number, two answers, ties, answers that a row lacks, large scores, and its rewards."""

import math

import numpy as np
import pytest
import torch

from finegrain.errors import DataError, UsageError
from finegrain.objectives.pro import PRO, ByRank
from finegrain.types import Pair, Side
from tests.objectives.worked import close, even_side, real

FULL = torch.ones(1, 3, dtype=torch.bool)


def three(scores: list[float], rewards: list[float], lengths: tuple[int, ...] = (2, 1, 3)) -> Pair:
    """A row of three answers of these average log-probabilities; 0 tokens: the row lacks it."""
    made = [even_side(score * n, 0.0, n) if n else absent() for score, n in zip(scores, lengths, strict=True)]
    sides = {f"answer-{place}": side for place, side in enumerate(made, 1)}
    return Pair(sides=sides, columns={f"ranked_reward/{role}": real(reward) for role, reward in zip(sides, rewards, strict=True)})


def absent() -> Side:
    return Side(logp=torch.full((1, 5), torch.nan, dtype=torch.float64), mask=torch.zeros(1, 5, dtype=torch.bool))


def test_worked_number() -> None:
    """T_1 = 2, T_2 = 1: log(e^(-1*2) + e^(-2*1) + e^(-3*2)) + 2, plus log(e^(-2*1) + e^(-3*1)) + 2; imitation .05 * 4 * 2 nats."""
    ranking = math.log(math.exp(-2) + math.exp(-2) + math.exp(-6)) + 2 + math.log(math.exp(-2) + math.exp(-3)) + 2
    pair = three([-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0])
    close(PRO(answers=3)(pair), ranking + 0.05 * 4 * 2)
    close(PRO(answers=3, imitation=0.0)(pair), ranking)


def test_a_row_that_lacks_an_answer_is_one_of_two() -> None:
    pair = three([-1.0, -2.0, -3.0], [-1.0, -2.0, 0.0], (2, 1, 0))
    want = math.log(math.exp(-1) + math.exp(-2)) + 1 + 0.05 * 1 * 2
    close(PRO(answers=3)(pair), want)
    close(PRO(answers=2)(pair), want)
    assert float(PRO(answers=3)(three([-1.0, -2.0, -3.0], [-1.0, 0.0, 0.0], (2, 0, 0)))) == 0
    measured = PRO(answers=3).measures(pair)["ranks/accuracies"]
    assert (float(measured.value), float(measured.count)) == (1, 1)


def test_equal_rewards_rank_nothing() -> None:
    pair = three([-1.0, -2.0, -3.0], [1.0, 1.0, 1.0])
    logps = [side.logp.requires_grad_() for side in pair.sides.values()]
    slopes = torch.autograd.grad(PRO(answers=3, imitation=0.0)(pair).sum(), logps)
    assert not any(torch.where(side.mask, slope, 0.0).any() for side, slope in zip(pair.sides.values(), slopes, strict=True))
    assert float(PRO(answers=3).measures(pair)["ranks/accuracies"].count) == 0


def test_large_scores_stay_finite_in_float32() -> None:
    pair = three([-900.0, -1.0, -700.0], [-1.0, -2.0, -3.0])
    narrow = {role: Side(logp=side.logp.float().requires_grad_(), mask=side.mask) for role, side in pair.sides.items()}
    loss = PRO(answers=3)(Pair(sides=narrow, columns={name: value.float() for name, value in pair.columns.items()}))
    assert torch.isfinite(loss).all()
    slopes = torch.autograd.grad(loss.sum(), [side.logp for side in narrow.values()])
    assert all(torch.isfinite(torch.where(side.mask, slope, 0.0)).all() for side, slope in zip(narrow.values(), slopes, strict=True))


def test_rewards_are_scores_or_ranks() -> None:
    ranks = {"rank/answer-1": np.array([1.0, 1.0]), "rank/answer-2": np.array([2.0, 1.0]), "rank/answer-3": np.array([3.0, np.nan])}
    scores = {name.replace("rank", "score"): 7 - 2 * values for name, values in ranks.items()}
    method, by_rank = PRO(answers=4), PRO(answers=4, rewards=ByRank())
    named = lambda found: [found[f"ranked_reward/answer-{place}"].tolist() for place in range(1, 5)]
    assert named(method.row_columns(ranks)) == [[-1, -1], [-2, -1], [-3, 0], [0, 0]]
    assert named(method.row_columns({**ranks, **scores})) == [[5, 5], [3, 5], [1, 0], [0, 0]]
    assert named(by_rank.row_columns({**ranks, **scores})) == named(method.row_columns(ranks))
    scores["score/answer-2"] = np.array([3.0, np.nan])
    with pytest.raises(DataError, match="1 of answer-2 are no number"):
        method.row_columns({**ranks, **scores})
    scores["score/answer-2"] = np.array([6.0, 5.0])
    with pytest.raises(DataError, match="1 rows score answer-2 above the one before it"):
        method.row_columns({**ranks, **scores})
    with pytest.raises(UsageError, match="answers must be a whole number"):
        PRO(answers=1)
