"""bfpo: worked numbers, the identity with ipo, its targets, and the order of four classes at the tabular optimum."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.errors import DataError
from finegrain.objectives.bfpo import BFPO, bfpo_target
from finegrain.objectives.ipo import IPO
from finegrain.types import Pair, Side
from tests.objectives.worked import close, random_pair, real, scalar_pair

FLAGS = ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
"""(chosen is safe, rejected is safe)."""


def flagged(pair: Pair, flags: list[tuple[float, float]]) -> Pair:
    chosen, rejected = zip(*flags, strict=True)
    return replace(pair, columns={**pair.columns, "is_chosen_safe": torch.tensor(chosen), "is_rejected_safe": torch.tensor(rejected)})


def targets(beta: float = 0.01, b1: float = 3.0, alpha: float = 0.5) -> dict[tuple[float, float], float]:
    chosen, rejected = (real(*column) for column in zip(*FLAGS, strict=True))
    return dict(zip(FLAGS, bfpo_target(chosen, rejected, beta=beta, b1=b1, alpha=alpha).tolist(), strict=True))


def test_worked_pairs() -> None:
    pair = flagged(scalar_pair((2.0,) * 4, (0.0,) * 4), list(FLAGS))
    close(BFPO()(pair), 2304.0, 9604.0, 10404.0, 2704.0, tolerance=1e-8)
    (slope,) = torch.autograd.grad(BFPO()(pair).sum(), pair.chosen.logp)
    close(slope[:, 0], *(2 * (2.0 - target) for target in (50.0, 100.0, -100.0, -50.0)), tolerance=1e-9)


@pytest.mark.parametrize("beta", [0.01, 0.3])
def test_where_all_are_safe_it_is_summed_ipo(beta: float) -> None:
    pair = flagged(random_pair(), [(1.0, 1.0)] * 5)
    got, want = BFPO(beta=beta)(pair), IPO(beta=beta)(pair)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    live = [pair.chosen.logp, pair.rejected.logp]
    for ours, theirs in zip(torch.autograd.grad(got.sum(), live), torch.autograd.grad(want.sum(), live), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_targets_at_the_defaults() -> None:
    assert {flags: 0.01 * target for flags, target in targets().items()} == pytest.approx(dict(zip(FLAGS, (0.5, 1.0, -1.0, -0.5), strict=True)))


@pytest.mark.parametrize("b1", [1.5, 3.0, 5.0])
def test_targets_are_antisymmetric_at_half(b1: float) -> None:
    found = targets(b1=b1)
    assert found[1.0, 0.0] == pytest.approx(-found[0.0, 1.0], rel=1e-12)
    assert found[1.0, 1.0] == pytest.approx(-found[0.0, 0.0], rel=1e-12)


@pytest.mark.parametrize(("b1", "alpha"), [(3.0, 0.5), (5.0, 0.3), (1.5, 0.9)])
def test_targets_are_consistent(b1: float, alpha: float) -> None:
    found = targets(b1=b1, alpha=alpha)
    assert found[1.0, 0.0] == pytest.approx(found[1.0, 1.0] - found[0.0, 1.0] + found[0.0, 0.0], rel=1e-12)


def test_alpha_says_which_pairs_are_left_alone() -> None:
    assert targets(alpha=0.0)[0.0, 0.0] == 0
    assert targets(alpha=1.0)[1.0, 1.0] == 0


@pytest.mark.parametrize(("b1", "alpha", "rewards"), [(3.0, 0.5, (0.75, 0.25, -0.25, -0.75)), (5.0, 0.3, (0.725, 0.025, -0.225, -0.525))])
def test_the_tabular_optimum_orders_four_classes(b1: float, alpha: float, rewards: tuple[float, ...]) -> None:
    """Safe-helpful, safe-unhelpful, unsafe-unhelpful, unsafe-helpful: a softmax over four answers, trained on all pairs, at loss 0."""
    safe, helpful = (1.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 1.0)
    pairs = [(high, low) for high, low in product(range(4), range(4)) if helpful[high] > helpful[low]]
    assert len(pairs) == 4
    reference = torch.log_softmax(real(0.3, -0.7, 1.1, 0.0), 0)
    method = BFPO(b1=b1, alpha=alpha)
    logits = reference.clone().requires_grad_()

    def loss() -> Tensor:
        logp = logits.log_softmax(0)
        sides = []
        for places in zip(*pairs, strict=True):
            column = torch.tensor(places)[:, None]
            sides.append(Side(logp=logp[column], ref_logp=reference[column], mask=torch.ones_like(column, dtype=torch.bool)))
        pair = Pair(sides=dict(zip(("chosen", "rejected"), sides, strict=True)))
        return method(flagged(pair, [(safe[high], safe[low]) for high, low in pairs])).mean()

    optimiser = torch.optim.LBFGS([logits], lr=1.0, max_iter=100, tolerance_grad=1e-10, tolerance_change=0.0, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
    found = method.beta * (logits.detach().log_softmax(0) - reference)
    close(found - found.mean(), *rewards, tolerance=1e-6)
    close(loss()[None], 0.0, tolerance=1e-6)


def test_a_probability_of_being_safe_has_the_gradient_of_its_flags_on_average() -> None:
    pair = scalar_pair((0.3,), (-0.2,))
    both = [torch.autograd.grad(BFPO()(flagged(pair, [flags])).sum(), pair.chosen.logp)[0] for flags in ((1.0, 0.0), (0.0, 0.0), (0.25, 0.0))]
    torch.testing.assert_close(both[2], 0.25 * both[0] + 0.75 * both[1])


def test_two_streams_add_their_means() -> None:
    """The gradient of a step is that of both batches' means together, whatever their sizes."""
    pair = flagged(random_pair(), [FLAGS[row % 4] for row in range(5)])
    second = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0])
    terms = BFPO()(replace(pair, columns={**pair.columns, "second_stream": second}))
    assert isinstance(terms, dict)
    losses = BFPO()(pair)
    assert isinstance(losses, Tensor)
    means = [terms[name].value.sum() / terms[name].count.sum() for name in ("first_stream", "second_stream")]
    close(torch.stack(means), losses[second == 0].mean().item(), losses[second == 1].mean().item())
    assert [term.coefficient for term in terms.values()] == [1.0, 1.0]


def test_flags_belong_to_their_side() -> None:
    """The swapped pair is that of the same answers in the other order."""
    pair = flagged(random_pair(rows=1), [(1.0, 0.0)])
    again = flagged(replace(pair, sides={"chosen": pair.rejected, "rejected": pair.chosen}), [(0.0, 1.0)])
    torch.testing.assert_close(BFPO()(pair.swapped()), BFPO()(again))


def test_pairs_by_harmlessness_are_refused() -> None:
    numbers = {"helpful": np.array([1.0, 0.0, 0.0]), "harmless": np.array([1.0, 1.0, 1.0])}
    with pytest.raises(DataError, match="2 of 3 are ordered by harmlessness"):
        BFPO().row_columns(numbers)
    assert BFPO().row_columns({name: column[:1] for name, column in numbers.items()}) == {}
    assert BFPO().row_columns({"helpful": numbers["helpful"]}) == {}, "a rating of that name is none of its business"


def test_a_column_of_the_data_is_not_taken_for_the_second_stream() -> None:
    with pytest.raises(DataError, match="the data have a column second_stream"):
        BFPO().row_columns({"second_stream": np.zeros(3)})


@pytest.mark.parametrize("b1", [1.0, 0.5])
def test_b1_must_exceed_one(b1: float) -> None:
    with pytest.raises(ValueError, match="b1"):
        BFPO(b1=b1)
