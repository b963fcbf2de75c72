"""nll: a number by hand, and a mean over kept tokens."""

from dataclasses import replace

import torch

from finegrain.objectives.nll import NLL
from finegrain.types import Pair
from tests.laws.drive import step_loss
from tests.objectives.worked import close, even_side, random_pair


def test_by_hand() -> None:
    term = NLL()(Pair(sides={"answer": even_side(-10, -11, 5)}))["nll"]
    close(term.value, 10.0)
    close(term.count, 5.0)
    assert term.coefficient == 1.0


def test_the_step_is_a_mean_over_tokens_not_over_rows() -> None:
    side = replace(random_pair(1).chosen, weight=None)
    want = -sum(float(side.logp.detach()[row, t]) for row in range(5) for t in range(6) if side.mask[row, t]) / int(side.mask.sum())
    close(step_loss(NLL(), [Pair(sides={"answer": side})]).unsqueeze(0), want, tolerance=1e-12)


def test_credit_weights_tokens_and_the_denominator() -> None:
    side = even_side(-10, -11, 5)
    weight = torch.tensor([[1.0, 0.0, 0.5, 0.0, 0.0]], dtype=torch.float64)
    term = NLL()(Pair(sides={"answer": replace(side, weight=weight)}))["nll"]
    close(term.value, 3.0)
    close(term.count, 1.5)
