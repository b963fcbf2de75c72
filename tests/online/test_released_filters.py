"""Weights of the two released codes (online/released_filters.py) beside the paper's: equal where the page says so, and different where it says so."""

import torch

from finegrain.online.released_filters import authors_best_random, authors_best_worst, authors_power, verl_best_random, verl_best_worst, verl_power
from finegrain.online.select import BestRandom, BestWorst, Power, weigh_answers

REWARD = torch.tensor([0.2, -0.7, 0.9, 0.1, -0.3, 0.6, 0.5, -0.9, 0.0, 0.3], dtype=torch.float64)
GROUP, EVERYONE = torch.arange(10) // 5, torch.ones(10, dtype=torch.bool)


def shares(weight: torch.Tensor) -> torch.Tensor:
    return weight / weight.sum()


def test_with_five_answers_the_authors_weights_are_the_papers() -> None:
    for theirs, ours in ((authors_best_random(REWARD, GROUP), BestRandom()), (authors_best_worst(REWARD, GROUP), BestWorst())):
        torch.testing.assert_close(shares(theirs), shares(weigh_answers(ours, REWARD, GROUP, EVERYONE).weight))
    ours = weigh_answers(Power(by_prompt=False), REWARD, GROUP, EVERYONE).weight
    torch.testing.assert_close(shares(authors_power(REWARD, 2.0)), shares(ours))
    assert not torch.allclose(shares(ours), shares(weigh_answers(Power(), REWARD, GROUP, EVERYONE).weight))
    four = GROUP[:4] * 0
    assert not torch.allclose(
        shares(authors_best_random(REWARD[:4], four)), shares(weigh_answers(BestRandom(), REWARD[:4], four, EVERYONE[:4]).weight)
    )


def test_verl_looks_at_the_whole_batch_and_lets_nothing_go() -> None:
    assert (verl_best_worst(REWARD) > 0.5).nonzero().flatten().tolist() == [2, 7]
    assert (verl_best_random(REWARD) > 0.2).nonzero().flatten().tolist() == [2]
    assert verl_best_worst(REWARD).min() == 1e-8
    assert verl_power(REWARD, 2.0).min() == 1e-8
