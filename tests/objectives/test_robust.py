"""robust: worked number, and unbiasedness under flipped labels."""

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.objectives.dpo import DPO, dpo_loss
from finegrain.objectives.robust import Robust, robust_loss
from tests.objectives.worked import close, random_pair, real, worked_pair


def test_worked_pair() -> None:
    close(Robust(label_smoothing=0.1)(worked_pair()), 0.602207048)


def test_no_flips_is_dpo() -> None:
    pair = random_pair()
    assert torch.equal(Robust(label_smoothing=0.0)(pair), DPO()(pair))


def test_expectation_over_flips_is_dpo_on_clean_labels() -> None:
    margin = real(-7, 0, 1.5, 20)
    for rate in (0.05, 0.3, 0.45):
        right, flipped = (robust_loss(sign * margin, beta=0.3, label_smoothing=rate) for sign in (1, -1))
        torch.testing.assert_close((1 - rate) * right + rate * flipped, dpo_loss(margin, beta=0.3), rtol=0, atol=1e-12)


def test_a_coin_is_refused() -> None:
    with pytest.raises(UsageError, match="label_smoothing"):
        Robust(label_smoothing=0.5)
