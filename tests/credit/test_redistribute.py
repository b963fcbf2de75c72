"""A sequence reward on tokens: sums, limits, padding."""

import pytest
import torch

from finegrain.credit.redistribute import distribute_by_shares, mix_with_end, sparse_reward, uniform_shares

MASK = torch.tensor([[True, True, True, True], [False, True, False, True], [True, False, False, False], [False] * 4])
TOTAL = torch.tensor([2.0, -3.0, 1.0, 5.0], dtype=torch.float64)


def test_worked() -> None:
    assert sparse_reward(TOTAL, MASK).tolist() == [[0, 0, 0, 2], [0, 0, 0, -3], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert uniform_shares(MASK).tolist() == [[0.25] * 4, [0, 0.5, 0, 0.5], [1, 0, 0, 0], [0, 0, 0, 0]]
    spread = distribute_by_shares(uniform_shares(MASK, torch.float64), TOTAL, MASK)
    assert mix_with_end(spread, TOTAL, MASK, share=0.5).tolist() == [[0.25, 0.25, 0.25, 1.25], [0, -0.75, 0, -2.25], [1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_sum_is_kept(share: float) -> None:
    shares = torch.where(MASK, torch.rand(4, 4, dtype=torch.float64), 0.0)
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-300)
    got = mix_with_end(distribute_by_shares(shares, TOTAL, MASK), TOTAL, MASK, share=share)
    torch.testing.assert_close(got.sum(1), torch.where(MASK.any(1), TOTAL, 0.0), rtol=0, atol=1e-12)


def test_garbage_off_the_mask_and_no_gradient() -> None:
    dense = torch.full((4, 4), torch.nan, dtype=torch.float64).masked_fill(MASK, 1.0).requires_grad_()
    got = mix_with_end(dense, TOTAL.clone().requires_grad_(), MASK, share=0.5)
    assert got.isfinite().all()
    assert got[~MASK].eq(0).all()
    assert not got.requires_grad


def test_shares_off_the_mask_give_nothing() -> None:
    assert distribute_by_shares(torch.full((4, 4), 0.5, dtype=torch.float64), TOTAL, MASK)[1].tolist() == [0.0, -1.5, 0.0, -1.5]
