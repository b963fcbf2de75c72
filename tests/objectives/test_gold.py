"""gold: worked number, its floor, and slopes that do not pass the probability."""

import math

import torch

from finegrain.objectives.gold import GOLD
from finegrain.types import row_losses
from tests.objectives.lol import answers, loss_and_slope, same, worked
from tests.objectives.worked import close


def test_worked_number() -> None:
    close(row_losses(GOLD()(worked(0.8, 0.5))), 0.8 * 3 * math.exp(-2) * 2)
    close(row_losses(GOLD(floor=0.5)(worked(0.8, 0.5))), 0.8 * 3 * 0.5 * 2)
    close(row_losses(GOLD(floor=1.0)(worked(0.8, 0.5))), 4.8)


def test_slope_does_not_pass_the_probability() -> None:
    pair = answers()
    weight = pair.answer.logp.detach().exp().clamp(min=0.6)
    same(loss_and_slope(GOLD(floor=0.6), pair)[1], torch.where(pair.answer.mask, -pair.columns["scored_reward"][:, None] * weight, 0.0))
