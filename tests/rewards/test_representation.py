"""Contrastive losses on features."""

import math

import pytest
import torch

from finegrain.rewards.representation import code_cross_entropy, draw_uniform, last_row, prototype_scores, sinkhorn_codes
from tests.rewards.batch_contrast import simcse_loss, swav_loss


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_simcse_by_hand() -> None:
    """Orthogonal items seen the same in both views: log(1 + e^(-1/tau)); length does not matter."""
    views = torch.tensor([[2.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    assert simcse_loss(views, 3 * views, temperature=0.5).tolist() == pytest.approx([math.log(1 + math.exp(-2))] * 2)


def test_simcse_of_a_single_item_is_zero() -> None:
    assert simcse_loss(draw(1, 4), draw(1, 4, seed=1)).tolist() == [0.0]


def test_simcse_agrees_with_a_naive_loop() -> None:
    first, second = draw(5, 3), draw(5, 3, seed=1)
    cos = lambda a, b: float(a @ b / (a.norm() * b.norm()))
    want = [-cos(first[i], second[i]) / 0.05 + math.log(sum(math.exp(cos(first[i], second[j]) / 0.05) for j in range(5))) for i in range(5)]
    assert simcse_loss(first, second).tolist() == pytest.approx(want, rel=1e-10)


def test_dropout_keeps_its_share_and_its_rows() -> None:
    kept = draw_uniform(torch.arange(200.0), 100, 0) >= 0.3
    assert float(kept.double().mean()) == pytest.approx(0.7, abs=0.02)
    assert torch.equal(draw_uniform(torch.tensor([7.0, 3.0]), 9, 1), draw_uniform(torch.tensor([3.0, 7.0]), 9, 1).flip(0))


def test_numbers_are_the_hash_they_are_said_to_be() -> None:
    """Rows 3 and 0, three places, stream 1, by whole numbers."""

    def drawn(place: int) -> float:
        mixed = ((place + 1) * 0x9E3779B1) % 2**32
        mixed = ((mixed ^ (mixed >> 15)) * 0x85EBCA6B) % 2**32
        mixed = ((mixed ^ (mixed >> 13)) * 0xC2B2AE35) % 2**32
        return ((mixed ^ (mixed >> 16)) + 0.5) / 2**32

    want = [[drawn((2 * row + 1) * 3 + place) for place in range(3)] for row in (3, 0)]
    assert draw_uniform(torch.tensor([3.0, 0.0]), 3, 1).tolist() == want


def test_features_of_the_last_token() -> None:
    """Of the mask, not of the row; 0 without a token, float32 at least."""
    features = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert last_row(features, mask).tolist() == [[2.0, 3.0], [0.0, 0.0]]
    assert last_row(features.bfloat16(), mask).dtype == torch.float32
    assert last_row(features.double(), mask).dtype == torch.float64


def test_cosines_and_agreement_by_hand() -> None:
    scores = prototype_scores(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, -0.5]]))
    assert scores.tolist() == [pytest.approx([0.6, -0.8])]
    assert prototype_scores(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 2.0]])).tolist() == [pytest.approx([0.6, 0.0])]
    total = math.log(math.exp(0.6 / 0.5) + math.exp(-0.8 / 0.5))
    want = -(0.25 * (0.6 / 0.5 - total) + 0.75 * (-0.8 / 0.5 - total))
    assert float(code_cross_entropy(torch.tensor([0.25, 0.75]), scores[0], 0.5)) == pytest.approx(want)


def test_one_round_of_codes_by_hand() -> None:
    """Columns first, then rows, in logarithms: scores log 2 and 0 over 0 and 0 at temperature 1."""
    found = sinkhorn_codes(torch.tensor([[math.log(2.0), 0.0], [0.0, 0.0]], dtype=torch.float64), temperature=1.0, iterations=1)
    columns = [[2 / 3, 1 / 2], [1 / 3, 1 / 2]]
    assert found.tolist() == [pytest.approx([value / sum(row) for value in row]) for row in columns]
    defaults = sinkhorn_codes(draw(5, 3))
    torch.testing.assert_close(defaults, sinkhorn_codes(draw(5, 3), temperature=0.05, iterations=3), rtol=0, atol=0)
    assert not torch.allclose(defaults, sinkhorn_codes(draw(5, 3), iterations=4), rtol=1e-12)


def test_swav_s_own_defaults() -> None:
    first, second, prototypes = draw(5, 4), draw(5, 4, seed=1), draw(3, 4, seed=2)
    given = swav_loss(first, second, prototypes, temperature=0.1, iterations=3)
    assert torch.equal(swav_loss(first, second, prototypes), given)
    assert not torch.allclose(swav_loss(first, second, prototypes, iterations=4), given, rtol=1e-12)


def test_codes_share_the_prototypes_out() -> None:
    """Rows sum to 1, and columns come to the same sum where plain probabilities pile up on one prototype."""
    scores = 0.1 * draw(40, 4)
    scores[:, 0] += 0.5
    codes = sinkhorn_codes(scores, temperature=0.2, iterations=50)
    torch.testing.assert_close(codes.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 10.0, dtype=torch.float64), rtol=1e-6, atol=0)
    assert torch.softmax(scores / 0.2, 1).sum(0)[0] > 25


def test_swav_by_hand() -> None:
    """Two orthogonal items on their own prototypes: codes after one round, cross-entropies log(1 + e^(-1/tau))."""
    views = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    code = 1 / (1 + math.exp(-1 / 0.05))
    stay, leave = math.log(1 + math.exp(-1 / 0.1)), math.log(1 + math.exp(1 / 0.1))
    want = 2 * (code * stay + (1 - code) * leave)
    assert swav_loss(views, 2 * views, 5 * torch.eye(2, dtype=torch.float64), iterations=1).tolist() == pytest.approx([want, want], rel=1e-12)


def test_swav_prefers_views_that_agree() -> None:
    """The two views may be exchanged, and codes carry no gradient."""
    first, prototypes = draw(8, 6), draw(3, 6, seed=2)
    same, other = swav_loss(first, first, prototypes), swav_loss(first, first.flip(0), prototypes)
    assert float(same.mean()) < float(other.mean())
    second = draw(8, 6, seed=3)
    torch.testing.assert_close(swav_loss(first, second, prototypes), swav_loss(second, first, prototypes))
    assert not sinkhorn_codes(first.clone().requires_grad_()).requires_grad
