"""ipo-averaged: worked number, and what the average divides by."""

from dataclasses import replace

import torch

from finegrain.objectives.ipo import IPO
from finegrain.objectives.ipo_averaged import IPOAveraged
from tests.objectives.worked import close, scalar_pair, worked_pair


def test_worked_pair() -> None:
    close(IPOAveraged()(worked_pair()), 21.855625)


def test_one_token_answers_make_both_forms_equal() -> None:
    pair = scalar_pair((0.4, -2.0), (1.0, 0.1))
    torch.testing.assert_close(IPOAveraged()(pair), IPO()(pair), rtol=0, atol=1e-12)


def test_credit_divides_by_the_kept_weight() -> None:
    pair = worked_pair()
    weight = torch.tensor([[1.0, 0.5, 0.0, 0.0, 0.0]], dtype=torch.float64)
    credited = replace(pair, sides={**pair.sides, "chosen": replace(pair.chosen, weight=weight)})
    close(IPOAveraged()(credited), 21.855625)
