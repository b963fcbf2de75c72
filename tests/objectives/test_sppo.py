"""sppo: a number by hand, and its minimum."""

from finegrain.objectives.sppo import SPPO
from tests.objectives.worked import close, scalar_pair, worked_pair


def test_worked_pair() -> None:
    close(SPPO()(worked_pair()), (1 - 5) ** 2 + (-0.5 + 5) ** 2)


def test_minimum_and_reference() -> None:
    close(SPPO(beta=0.25)(scalar_pair((2.0, 0.0), (-2.0, 0.0))), 0.0, 8.0, tolerance=1e-12)
