"""Inner products, cosines and slopes against naive loops. Test of ops/gradients.py."""

import pytest
import torch
from torch import Tensor

from finegrain.ops.gradients import GradientPair, compare_gradients, dot, gradient_of, score_slope, token_cosines, token_gram
from finegrain.ops.sequence import sequence_logp
from finegrain.types import Side
from tests.golden.entanglement import toy_logps
from tests.objectives.worked import random_pair

CHOSEN, REJECTED = [3, 1, 5, 2, 4], [3, 1, 0, 2]


def toy() -> tuple[list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    parameters = [torch.randn(6, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    chosen, rejected = (toy_logps(*parameters, ids, 2) for ids in (CHOSEN, REJECTED))
    return parameters, chosen, rejected


@pytest.mark.parametrize("most_numbers", [1, 72, 2**27], ids=["a token at a time", "two", "all"])
def test_the_token_matrix_sums_to_the_inner_product(most_numbers: int) -> None:
    parameters, chosen, rejected = toy()
    gram, norms, other_norms = token_gram(chosen, rejected, parameters, most_numbers=most_numbers)
    assert gram.shape == (3, 2)
    whole = compare_gradients(gradient_of(chosen.sum(), parameters), gradient_of(rejected.sum(), parameters))
    assert float(gram.sum()) == pytest.approx(whole.inner, rel=1e-12)
    vectors = [torch.stack([torch.cat([part.flatten() for part in gradient_of(one, parameters)]) for one in side]) for side in (chosen, rejected)]
    torch.testing.assert_close(gram, vectors[0] @ vectors[1].T)
    torch.testing.assert_close(
        token_cosines(gram, norms, other_norms), torch.nn.functional.cosine_similarity(vectors[0][:, None], vectors[1][None], -1)
    )


def test_three_numbers_of_two_vectors() -> None:
    found = compare_gradients([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])], [torch.tensor([1.0]), torch.tensor([[0.0, 0.0]])])
    assert found == GradientPair(3.0, 5.0, 1.0)
    assert found.cosine == pytest.approx(0.6)
    assert found.condition_ratio == pytest.approx(3.0), "over the smaller squared norm, whichever answer has it"
    assert GradientPair(3.0, 1.0, 5.0).condition_ratio == pytest.approx(3.0)
    assert GradientPair(0.0, 0.0, 1.0).cosine == 0


def test_a_number_that_reads_no_parameter_has_gradient_0() -> None:
    one, other = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    found = gradient_of(one.sum(), [one, other])
    assert dot(found, found) == 2
    assert found[1].shape == (3,)


def test_the_slope_by_a_weighted_score() -> None:
    """A loss that reads the score alone gives it back exactly; garbage off the mask and an empty answer change nothing."""
    side = random_pair().chosen
    slope = torch.linspace(-2, 2, len(side.mask), dtype=torch.float64)
    (by_token,) = torch.autograd.grad((slope * sequence_logp(side)).sum(), side.logp)
    spoiled = torch.where(side.mask, by_token, torch.nan)
    torch.testing.assert_close(score_slope(spoiled, side), slope)
    empty = Side(logp=torch.zeros(1, 2), mask=torch.zeros(1, 2).bool())
    assert float(score_slope(torch.ones(1, 2), empty)) == 0
