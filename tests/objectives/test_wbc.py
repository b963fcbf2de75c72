"""wbc: worked number, nll where rewards are 1, slopes."""

from finegrain.objectives.wbc import WBC
from finegrain.types import row_losses
from tests.objectives.lol import answers, loss_and_slope, same, spread, worked
from tests.objectives.worked import close


def test_worked_number() -> None:
    close(row_losses(WBC()(worked(0.8, 0.5))), 4.8)
    close(row_losses(WBC()(worked(1.0, 0.5))), 6.0)


def test_slope() -> None:
    pair = answers()
    same(loss_and_slope(WBC(), pair)[1], spread(-pair.columns["scored_reward"], pair))
