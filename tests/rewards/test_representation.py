"""Contrastive losses on features."""

import math
from dataclasses import replace

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.rewards.representation import SimCSE, simcse_loss, sinkhorn_codes, swav_loss, uniform
from finegrain.types import Pair, Side


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


def features(rows: list[int], chosen: torch.Tensor, rejected: torch.Tensor) -> Pair:
    """Pairs of answers of three tokens, of which the second is the last; the features stand on it."""
    mask = torch.tensor([[True, True, False]]).expand(len(rows), 3)

    def side(own: torch.Tensor) -> Side:
        junk = torch.full_like(own, 7.0)
        return Side(logp=torch.zeros(mask.shape, dtype=own.dtype), mask=mask, features=torch.stack([junk, own, junk], 1))

    return Pair(sides={"chosen": side(chosen), "rejected": side(rejected)}, columns={"row": torch.tensor(rows, dtype=torch.float64)})


def with_views(term: SimCSE, pair: Pair) -> Pair:
    return replace(pair, statistics={name: found.value.detach() for name, found in term.statistics(pair).items()})


def test_the_term_is_simcse_of_dropped_out_differences() -> None:
    """The differences of last tokens, each view with its own features left out; one pair alone is 0."""
    chosen, rejected = draw(4, 50), draw(4, 50, seed=1)
    term = SimCSE(dropout=0.2)
    views = [torch.where(uniform(torch.arange(4.0), 50, k) >= 0.2, chosen - rejected, 0.0) for k in (0, 1)]
    got = term(with_views(term, features([0, 1, 2, 3], chosen, rejected)))
    torch.testing.assert_close(got, simcse_loss(*views), rtol=1e-10, atol=1e-10)
    assert float(term(with_views(term, features([5], chosen[:1], rejected[:1])))) == pytest.approx(0.0, abs=1e-12)
    assert not torch.equal(views[0], views[1])


def test_dropout_keeps_its_share_and_its_rows() -> None:
    kept = uniform(torch.arange(200.0), 100, 0) >= 0.3
    assert float(kept.double().mean()) == pytest.approx(0.7, abs=0.02)
    assert torch.equal(uniform(torch.tensor([7.0, 3.0]), 9, 1), uniform(torch.tensor([3.0, 7.0]), 9, 1).flip(0))
    with pytest.raises(UsageError, match="coincide"):
        SimCSE(dropout=0.0)


def test_codes_share_the_prototypes_out() -> None:
    """Rows sum to 1, and columns come to the same sum where plain probabilities pile up on one prototype."""
    scores = 0.1 * draw(40, 4)
    scores[:, 0] += 0.5
    codes = sinkhorn_codes(scores, temperature=0.2, iterations=50)
    torch.testing.assert_close(codes.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 10.0, dtype=torch.float64), rtol=1e-6, atol=0)
    assert torch.softmax(scores / 0.2, 1).sum(0)[0] > 25


def test_swav_prefers_views_that_agree() -> None:
    """The two views may be exchanged, and codes carry no gradient."""
    first, prototypes = draw(8, 6), draw(3, 6, seed=2)
    same, other = swav_loss(first, first, prototypes), swav_loss(first, first.flip(0), prototypes)
    assert float(same.mean()) < float(other.mean())
    second = draw(8, 6, seed=3)
    torch.testing.assert_close(swav_loss(first, second, prototypes), swav_loss(second, first, prototypes))
    assert not sinkhorn_codes(first.clone().requires_grad_()).requires_grad
