"""The directions that a step gives to both log-probabilities. Test of diagnose/entanglement.py.

The coefficients d_w and d_l of every loss of the table, by autograd; the two formulas against real steps; the cases and the verdicts.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from finegrain.diagnose.entanglement import (
    BOTH_FALL,
    BOTH_RISE,
    IDEAL,
    MIXED,
    REVERSED,
    STILL,
    TANGLED,
    UNDECIDED,
    UNTANGLED,
    Drift,
    assess_entanglement,
    chosen_rises,
    name_case,
    predict_drift,
    rejected_falls,
)
from finegrain.objectives.cpo import CPO
from finegrain.objectives.dpo import DPO
from finegrain.objectives.dpop import DPOP
from finegrain.objectives.hinge import Hinge
from finegrain.objectives.ipo import IPO
from finegrain.objectives.kto import kto_loss
from finegrain.objectives.orpo import odds_ratio_bonus
from finegrain.objectives.r_dpo import RDPO
from finegrain.objectives.rrhf import RRHF
from finegrain.objectives.simpo import SimPO
from finegrain.objectives.slic import SLiC
from finegrain.objectives.sppo import SPPO
from finegrain.ops.gradients import GradientPair, compare_gradients, gradient_of, score_slope
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair, Side, row_losses
from tests.golden.entanglement import toy_logps
from tests.objectives.worked import worked_pair

BETA = 0.1
L_W, R_W, N_W, L_L, R_L, N_L = -10.0, -11.0, 5, -12.0, -11.5, 4
H = 1.5
"""The worked pair: chosen log-ratio 1, rejected one -0.5."""


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def orpo(pair: Pair) -> Tensor:
    """The odds-ratio part alone; its NLL adds 1 / tokens to d_w as cpo's does."""
    return -odds_ratio_bonus(pair, beta=BETA)


def kto(pair: Pair) -> Tensor:
    """Both answers of a pair against the reference point 0.2, the good one at weight 2, the bad one at 3."""
    right, point = torch.ones(1, dtype=torch.bool), torch.tensor(0.2, dtype=torch.float64)
    good = kto_loss(log_ratio(pair.chosen), right, point, beta=BETA, weight=(2.0, 3.0))
    return good + kto_loss(log_ratio(pair.rejected), ~right, point, beta=BETA, weight=(2.0, 3.0))


S = BETA * sigmoid(-BETA * H)
ODDS = [a / n - math.log(-math.expm1(a / n)) for a, n in ((L_W, N_W), (L_L, N_L))]
S_ODDS = BETA * sigmoid(ODDS[1] - ODDS[0])
S_SIMPO = 2 * sigmoid(-(2 * (L_W / N_W - L_L / N_L) - 1))
SLOPE_OF_SIGMA = [sigmoid(x) * (1 - sigmoid(x)) for x in (BETA * (1 - 0.2), BETA * (0.2 + 0.5))]
TABLE: dict[str, tuple[Callable[[Pair], Any], float, float]] = {
    "dpo": (DPO(beta=BETA), S, S),
    "r-dpo": (RDPO(beta=BETA, alpha=0.2), *([BETA * sigmoid(-BETA * H - 0.2 * (N_W - N_L))] * 2)),
    "ipo": (IPO(beta=BETA), 1 / BETA - 2 * H, 1 / BETA - 2 * H),
    "simpo": (SimPO(beta=2.0, gamma=1.0), S_SIMPO / N_W, S_SIMPO / N_L),
    "cpo": (CPO(beta=BETA, nll=0.7), BETA * sigmoid(-BETA * (L_W - L_L)) + 0.7 / N_W, BETA * sigmoid(-BETA * (L_W - L_L))),
    "dpop, above the reference": (DPOP(beta=BETA), S, S),
    "hinge": (Hinge(beta=BETA), BETA, BETA),
    "hinge, beyond its margin": (Hinge(beta=1.0), 0.0, 0.0),
    "slic": (SLiC(beta=BETA, nll=0.5), BETA + 0.5 / N_W, BETA),
    "rrhf, as labelled": (RRHF(nll=0.5), 0.5 / N_W, 0.0),
    "orpo": (orpo, S_ODDS / (N_W * -math.expm1(L_W / N_W)), S_ODDS / (N_L * -math.expm1(L_L / N_L))),
    "kto": (kto, 2 * BETA * SLOPE_OF_SIGMA[0], 3 * BETA * SLOPE_OF_SIGMA[1]),
    "sppo, mean of both": (lambda pair: SPPO(beta=BETA)(pair) / 2, 0.5 / BETA - 1.0, -0.5 + 0.5 / BETA),
}
"""Loss, d_w and d_l of the paper's table at the worked pair."""


def slopes(objective: Callable[[Pair], Any], pair: Pair) -> tuple[float, float]:
    """d_w and d_l by autograd on the two sequence scores."""
    sides = {role: Side(logp=side.logp.detach().requires_grad_(), ref_logp=side.ref_logp, mask=side.mask) for role, side in pair.sides.items()}
    loss = row_losses(objective(Pair(sides=sides))).sum()
    found = torch.autograd.grad(loss, [sides["chosen"].logp, sides["rejected"].logp], allow_unused=True)
    up, down = (0.0 if slope is None else float(score_slope(slope, side)) for slope, side in zip(found, sides.values(), strict=True))
    return -up, down


@pytest.mark.parametrize("name", TABLE)
def test_slopes_of_the_table(name: str) -> None:
    objective, up, down = TABLE[name]
    assert slopes(objective, worked_pair()) == (pytest.approx(up, abs=1e-12), pytest.approx(down, abs=1e-12))


def test_slopes_below_the_reference_and_against_the_label() -> None:
    """DPO-Positive's indicator and RRHF's: the pair with its sides exchanged has a chosen answer that fell and scores lower per token."""
    pair = worked_pair().swapped()
    s = BETA * sigmoid(-BETA * (-H - 50 * 0.5))
    assert slopes(DPOP(beta=BETA), pair) == (pytest.approx(s * 51), pytest.approx(s))
    assert slopes(RRHF(nll=0.5), pair) == (pytest.approx(1 / N_L + 0.5 / N_L), pytest.approx(1 / N_W))


def toy(seed: int) -> tuple[list[Tensor], Callable[[], Pair]]:
    """Parameters, and the pair under them as they stand: answers of 4 and 3 tokens with a shared end."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [torch.randn(8, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    answers = {"chosen": [1, 2, 3, 5, 6, 7], "rejected": [1, 2, 4, 6, 7]}
    start = {role: toy_logps(*parameters, ids, 2).detach() for role, ids in answers.items()}

    def pair() -> Pair:
        return Pair(
            sides={
                role: Side(logp=toy_logps(*parameters, ids, 2)[None], ref_logp=start[role][None] - 0.1, mask=torch.ones(1, len(ids) - 2).bool())
                for role, ids in answers.items()
            }
        )

    return parameters, pair


def step_error(objective: Callable[[Pair], Any], eta: float, seed: int = 0, spoil: float = 1.0) -> tuple[float, float]:
    """How far the change by a real step is from the formula's; `spoil` breaks it by a factor of the inner product."""
    parameters, make = toy(seed)
    pair = make()
    gradients = compare_gradients(*(gradient_of(side.logp.sum(), parameters) for side in pair.sides.values()))
    predicted = predict_drift(gradients._replace(inner=gradients.inner * spoil), *slopes(objective, pair))
    step = gradient_of(row_losses(objective(pair)).sum(), parameters)
    with torch.no_grad():
        for parameter, part in zip(parameters, step, strict=True):
            parameter -= eta * part
    moved = make()
    before, after = (torch.stack([side.logp.detach().sum() for side in one.sides.values()]) for one in (pair, moved))
    wrong = (after - before) - eta * torch.tensor(predicted, dtype=torch.float64)
    return float(wrong.abs().max()), float((after - before).abs().max())


@pytest.mark.parametrize("name", TABLE)
def test_both_formulas_hold_to_second_order(name: str) -> None:
    """Halving the step quarters what is left, of every loss of the table."""
    objective = TABLE[name][0]
    eta = 1e-5 / max(slopes(objective, toy(0)[1]()))
    (one, size), (half, _) = step_error(objective, eta), step_error(objective, eta / 2)
    assert one <= 1e-3 * size or size == 0
    assert half == pytest.approx(one / 4, rel=0.02, abs=1e-13)


def test_a_wrong_formula_is_seen() -> None:
    (one, _), (half, _) = step_error(DPO(), 1e-4, spoil=1.01), step_error(DPO(), 5e-5, spoil=1.01)
    assert half > 0.4 * one


def test_equal_gradients_move_nothing_and_opposed_ones_are_ideal() -> None:
    same = GradientPair(4.0, 2.0, 2.0)
    assert predict_drift(same, 0.3, 0.3) == (0, 0)
    assert name_case(predict_drift(same, 0.3, 0.3)) == STILL
    for _, up, down in TABLE.values():
        for inner in (0.0, -0.5, -2.9):
            apart = GradientPair(inner, 1.0, 3.0)
            assert chosen_rises(apart, up, down)
            assert rejected_falls(apart, up, down)


@pytest.mark.parametrize(("up", "down"), [(1.0, 1.0), (2.0, 0.5), (0.3, 1.7)])
def test_the_conditions_are_those_of_the_paper(up: float, down: float) -> None:
    for inner in (-1.0, 0.2, 0.9, 1.1, 2.5, 2.9):
        pair = GradientPair(inner, 1.0, 3.0)
        assert chosen_rises(pair, up, down) == (inner <= up / down * 1.0)
        assert rejected_falls(pair, up, down) == (inner <= down / up * 9.0)
        if up == down:
            drift = predict_drift(pair, up, down)
            assert drift.chosen - drift.rejected == pytest.approx(up * (1 + 9 - 2 * inner)), "the margin always rises, by d |g_w - g_l|^2"


def test_the_case_says_whose_gradient_is_larger() -> None:
    """Both fall where the rejected gradient is the larger one, both rise in reverse; the authors' printed ratio cannot tell them apart."""
    assert name_case(predict_drift(GradientPair(2.0, 1.0, 3.0), 1.0, 1.0)) == BOTH_FALL
    assert name_case(predict_drift(GradientPair(2.0, 3.0, 1.0), 1.0, 1.0)) == BOTH_RISE
    assert name_case(predict_drift(GradientPair(0.5, 3.0, 1.0), 1.0, 1.0)) == IDEAL
    assert name_case(predict_drift(GradientPair(0.5, 3.0, 1.0), -1.0, -1.0)) == REVERSED, "a pair that ipo pushes back"


def test_verdicts() -> None:
    good, bad, still = Drift(1.0, -1.0), Drift(-1.0, -2.0), Drift(0.0, 0.0)
    assert assess_entanglement([good] * 60, [None] * 60).verdict == UNTANGLED
    assert assess_entanglement([bad] * 20 + [good] * 2, [None] * 22).verdict == TANGLED
    assert assess_entanglement([bad] * 10 + [good] * 30, [None] * 40).verdict == MIXED
    assert assess_entanglement([bad] + [good] * 14, [None] * 15).verdict == UNDECIDED, "0.9 lies within the interval"
    found = assess_entanglement([bad] * 9 + [still] * 20, [Drift(-1.0, -1.0)] * 5 + [None] * 24)
    assert found.verdict == UNDECIDED, "pairs that do not move say nothing"
    assert found.shares[BOTH_FALL].rows == 9
    assert found.agreement is not None
    assert (found.agreement.mean, found.agreement.rows) == (1.0, 10)
    half = assess_entanglement([bad, bad], [Drift(-1.0, 1.0), None]).agreement
    assert half is not None
    assert half.mean == 0.5
