"""secrets-rm, what must hold: a label that is a coin asks for a tie. Test of rewards/secrets_rm.py."""

import math

import pytest
import torch

from finegrain.rewards.bradley_terry import bradley_terry_loss
from finegrain.rewards.secrets_rm import floored_loss


def test_a_smoothing_of_one_half_is_least_at_a_tie() -> None:
    z = torch.tensor([0.0, -0.3, 0.3, 4.0], dtype=torch.float64, requires_grad=True)
    for loss in (bradley_terry_loss(z, label_smoothing=0.5), floored_loss(z, epsilon=0.0, label_smoothing=0.5)):
        assert loss[0].item() == pytest.approx(math.log(2), abs=1e-12)
        assert (loss[1:] > loss[0]).all()
        (slope,) = torch.autograd.grad(loss[0], z, retain_graph=True)
        assert slope[0].abs() < 1e-12
