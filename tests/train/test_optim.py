"""The optimisers, by hand."""

import pytest
import torch
from torch import nn

from finegrain.train.optim import Optim, make_optimizer


def test_sgd_steps_by_its_rate_and_keeps_momentum() -> None:
    """Decay of matrices is added to the gradient; beta1 of the last step goes on in the next."""
    weight = nn.Parameter(torch.full((1, 1), 2.0))
    optimizer = make_optimizer([weight], [], Optim(algorithm="sgd", beta1=0.5, weight_decay=0.25), 0.1)
    gradients = iter((1.0, 3.0))
    for expected in (2.0 - 0.1 * (1 + 0.5), 1.85 - 0.1 * (0.5 * 1.5 + 3 + 0.25 * 1.85)):
        weight.grad = torch.full((1, 1), next(gradients))
        optimizer.step()
        assert weight.item() == pytest.approx(expected)
