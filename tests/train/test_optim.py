"""Optimisers and schedules by hand."""

import math

import pytest
import torch

from finegrain.objectives.mask_network import SimpleAll
from finegrain.objectives.sparsepo import SparsePO
from finegrain.train.optim import Optim, learning_rate, make_optimizer
from finegrain.train.trainer import optimizer_of
from tests.train.awkward import Gated
from tests.train.harness import How, build


def test_sgd_keeps_momentum_and_decays_matrices_alone() -> None:
    """Two steps of gradient 2 at rate 0.1: the step is the gradient and its decay, then 0.5 of that step and the same anew."""
    matrix, vector, extra = (torch.nn.Parameter(torch.ones(shape)) for shape in ((1, 1), (1,), (1, 1)))
    optimizer = make_optimizer([matrix, vector], [extra], Optim(algorithm="sgd", beta1=0.5, weight_decay=0.5), 0.1)
    assert isinstance(optimizer, torch.optim.SGD)
    for _ in range(2):
        for parameter in (matrix, vector, extra):
            parameter.grad = torch.full_like(parameter, 2.0)
        optimizer.step()
    assert vector.item() == pytest.approx(1 - 0.1 * 2 - 0.1 * (0.5 * 2 + 2))
    assert extra.item() == vector.item()
    first = 1 - 0.1 * 2.5
    assert matrix.item() == pytest.approx(first - 0.1 * (0.5 * 2.5 + 2 + 0.5 * first))


def test_adamw_is_the_default_and_embeddings_have_their_own_rate() -> None:
    matrix, embeddings = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = make_optimizer([matrix, embeddings], [], Optim(), 0.1, embeddings=embeddings, embedding_factor=10.0)
    assert isinstance(optimizer, torch.optim.AdamW)
    factors = {id(group["params"][0]): group["rate_factor"] for group in optimizer.param_groups}
    assert factors == {id(embeddings): 10.0, id(matrix): 1.0}


def test_modules_decay_at_the_rate_of_their_objective() -> None:
    """Biases too, whatever the policy's decay is; those of an objective that says nothing never do."""
    for objective, decay in ((SparsePO(network=SimpleAll(weight_decay=0.3)), 0.3), (Gated(), 0.0)):
        built, _ = build(objective, How())
        optimizer = optimizer_of(built.scorer, built.contract, Optim(weight_decay=0.05), 0.1)
        own = {id(parameter) for module in built.contract.modules.values() for parameter in module.parameters()}
        decays = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
        assert own
        assert {decays[parameter] for parameter in own} == {decay}
        assert {rate for parameter, rate in decays.items() if parameter not in own} == {0.0, 0.05}


@pytest.mark.parametrize(
    ("schedule", "late"), [("linear", 0.75), ("cosine", 0.5 * (1 + math.cos(math.pi / 4))), ("constant", 1.0)], ids=["linear", "cosine", "constant"]
)
def test_rates_rise_and_fall(schedule: str, late: float) -> None:
    """Two of ten steps rise; step 4 is a quarter of the way down."""
    optim = Optim(warmup=0.2, schedule=schedule)
    assert [learning_rate(step, 10, 2.0, optim) for step in (0, 1, 2, 4)] == pytest.approx([1.0, 2.0, 2.0, 2.0 * late])
