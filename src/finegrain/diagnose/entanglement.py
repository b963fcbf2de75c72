"""Gradient entanglement: whether a step on a pair raises the chosen answer and lowers the rejected one, or moves both the same way.

    a step of size eta on a loss with slopes (-d_w, +d_l) by the two log-probabilities changes them by
    eta (d_w |g_w|^2 - d_l <g_w, g_l>)  and  eta (d_w <g_w, g_l> - d_l |g_l|^2)

Source: Yuan et al. 2024, https://arxiv.org/abs/2410.13828, section 3 (number: memory).
Deviations: the verdicts over many pairs, from 95 % intervals, are ours [OURS].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finegrain.ops.gradients import GradientPair
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval

IDEAL = "as wanted"
BOTH_FALL = "both fall"
BOTH_RISE = "both rise"
REVERSED = "the wrong way"
STILL = "neither moves"

UNTANGLED = "untangled"
TANGLED = "entangled"
MIXED = "partly entangled"
UNDECIDED = "undecided"

FEWEST_PAIRS = 10

WORDS = {
    UNTANGLED: "In most pairs a step raises the chosen answer and lowers the rejected one.",
    TANGLED: "In most pairs a step moves both answers the same way: their gradients point in nearly the same direction.",
    MIXED: "In a part of the pairs a step moves both answers the same way.",
    UNDECIDED: "How often a step moves both answers the same way cannot be decided at this number of pairs.",
}


class Drift(NamedTuple):
    """The change of both log-probabilities by a step, nats per unit of the step size."""

    chosen: float
    rejected: float


def predict_drift(gradients: GradientPair, chosen_slope: float, rejected_slope: float) -> Drift:
    """To first order, for a loss whose derivatives by the two log-probabilities are -`chosen_slope` (d_w) and +`rejected_slope` (d_l)."""
    inner, up, down = gradients.inner, gradients.chosen_norm**2, gradients.rejected_norm**2
    return Drift(chosen_slope * up - rejected_slope * inner, chosen_slope * inner - rejected_slope * down)


def chosen_rises(gradients: GradientPair, chosen_slope: float, rejected_slope: float) -> bool:
    """The exact condition <g_w, g_l> <= (d_w / d_l) |g_w|^2, without the division."""
    return predict_drift(gradients, chosen_slope, rejected_slope).chosen >= 0


def rejected_falls(gradients: GradientPair, chosen_slope: float, rejected_slope: float) -> bool:
    """The exact condition <g_w, g_l> <= (d_l / d_w) |g_l|^2, without the division."""
    return predict_drift(gradients, chosen_slope, rejected_slope).rejected <= 0


def name_case(drift: Drift) -> str:
    """What becomes of the two answers."""
    if drift.chosen == 0 and drift.rejected == 0:
        return STILL
    if drift.chosen >= 0 and drift.rejected <= 0:
        return IDEAL
    if drift.chosen < 0 and drift.rejected > 0:
        return REVERSED
    return BOTH_FALL if drift.chosen < 0 else BOTH_RISE


@dataclass(frozen=True)
class Entanglement:
    """Shares of the pairs whose answers a step moves."""

    shares: dict[str, Interval]
    """By case, of the pairs that move at all; Wilson."""
    agreement: Interval | None
    """Share of the answers, two a pair, whose observed direction is the predicted one; None where nothing was observed."""
    verdict: str

    @property
    def words(self) -> str:
        """The verdict as a sentence."""
        return WORDS[self.verdict]


def assess_entanglement(predicted: Sequence[Drift], observed: Sequence[Drift | None]) -> Entanglement:
    """The verdict on the predicted directions of some pairs, and how often they came true."""
    moving = [name_case(drift) for drift in predicted if name_case(drift) != STILL]
    shares = {case: wilson([float(name == case) for name in moving]) for case in (IDEAL, BOTH_FALL, BOTH_RISE, REVERSED)}
    seen = [(guess, seen) for guess, seen in zip(predicted, observed, strict=True) if seen is not None]
    right = [float(sign_of(guess[side]) == sign_of(found[side])) for guess, found in seen for side in (0, 1) if guess[side] != 0]
    return Entanglement(shares, wilson(right) if right else None, _verdict(shares[IDEAL]))


def sign_of(value: float) -> int:
    """-1, 0 or 1."""
    return (value > 0) - (value < 0)


def _verdict(ideal: Interval) -> str:
    if ideal.low is None or ideal.high is None or ideal.rows < FEWEST_PAIRS:
        return UNDECIDED
    if ideal.low > 0.9:
        return UNTANGLED
    if ideal.high < 0.5:
        return TANGLED
    return MIXED if ideal.high < 0.9 else UNDECIDED
