"""r-lol: worked number, slopes that do not pass the ratio, and rows that are never drawn."""

import pytest

from finegrain.errors import DataError
from finegrain.objectives.r_lol import RLoL
from finegrain.objectives.reward_rows import EveryRow
from finegrain.ops.sequence import log_ratio
from finegrain.train.read_contract import contract_of
from finegrain.types import row_losses
from tests.objectives.lol import answers, loss_and_slope, same, spread, worked
from tests.objectives.test_alol import rows
from tests.objectives.worked import close


def test_worked_number() -> None:
    close(row_losses(RLoL()(worked(0.8, 0.5))), 0.8 * 1.6487212707001282 * 6)
    close(row_losses(RLoL(clip=0.2)(worked(0.8, 0.5))), 0.8 * 1.2 * 6)


def test_slope_does_not_pass_the_ratio() -> None:
    pair = answers()
    ratio = log_ratio(pair.answer).detach().exp().clamp(0.1, 1.9)
    same(loss_and_slope(RLoL(), pair)[1], spread(-pair.columns["scored_reward"] * ratio, pair))


def test_rows_are_drawn_by_reward() -> None:
    train = rows()
    train.own[0] = -1.0
    found = RLoL().stage(train)
    assert found["priority"].tolist() == [0.0, *train.own[1:]]
    assert train.facts["negative_share"] == 1 / 8
    assert contract_of(RLoL(sampling=EveryRow())).unbounded
    assert not contract_of(RLoL()).unbounded
    train.own[:] = -1.0
    with pytest.raises(DataError, match="no training row has a positive reward"):
        RLoL().stage(train)
