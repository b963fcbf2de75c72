"""Where prior and head begin: at the standard deviation of the start model's temporal differences."""

import math

import pytest
import torch

from finegrain.ops.bayesian_irl import Inference, UnitScale
from finegrain.ops.gaussian_layer import GaussianLayer
from finegrain.ops.reward_weight import Uniform
from finegrain.types import Initialisation, Pair
from tests.objectives.test_ava_d import WORKED
from tests.objectives.test_ava_p import PAIR


def started() -> Initialisation:
    start = Inference().start(Uniform())
    assert start is not None
    return start


@pytest.mark.parametrize("given", [WORKED, PAIR], ids=["one answer", "a pair"])
def test_head_and_table_start_at_the_standard_deviation_of_all_answers(given: Pair) -> None:
    start, head = started(), GaussianLayer(2, 4, torch.Generator().manual_seed(0))
    found = start.statistics(given)["td_std"]
    differences = [
        float(side.logp[row, token] - side.logp[row, token + 1])
        for side in given.sides.values()
        for row in range(len(side.mask))
        for token in range(side.mask.shape[1] - 1)
        if side.mask[row, token] and side.mask[row, token + 1]
    ]
    values = torch.tensor(differences, dtype=torch.float64)
    moments = torch.stack([values.pow(power).sum() for power in range(3)])
    torch.testing.assert_close(found.value.double(), moments, rtol=1e-6, atol=1e-6)
    std = float(values.std(correction=0))
    assert start.settle({"td_std": moments}, head)["td_std"].tolist() == [pytest.approx(std)]
    assert float(head.log_std.detach()) == pytest.approx(math.log(std), rel=1e-5)


def test_answers_of_one_token_start_at_1() -> None:
    head = GaussianLayer(2, 4, torch.Generator().manual_seed(0))
    assert started().settle({"td_std": torch.zeros(3)}, head)["td_std"].tolist() == [1]
    assert float(head.log_std.detach()) == 0


def test_before_anything_was_read_the_table_is_1() -> None:
    assert {name: table.tolist() for name, table in started().state.items()} == {"td_std": [1]}


def test_nothing_is_read_where_the_scale_is_1() -> None:
    assert Inference(scale=UnitScale()).start(Uniform()) is None
