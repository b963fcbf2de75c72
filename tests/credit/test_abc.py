"""abc: worked numbers, what is kept, and what padding and scale change."""

import math

import pytest
import torch
from torch import Tensor

from finegrain.credit.abc import ABC, HeadMean, LargestHead, generation_rows, last_row, normalise_attention, share_entropy, shift_shares
from finegrain.credit.redistribute import sparse_reward, uniform_shares
from finegrain.errors import UsageError


def draw(rows: int = 5, width: int = 8, heads: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Attention rows, sequence rewards, ragged masks with holes; the last answer is one token."""
    mask = torch.rand(rows, width) < 0.7
    mask[:, 3] = True
    mask[-1] = torch.arange(width) == 3
    return torch.rand(rows, heads, width, dtype=torch.float64), torch.randn(rows, dtype=torch.float64), mask


def test_worked() -> None:
    """Two heads whose mean is in the ratio 1 : 2 : 4 : 2 : 1."""
    attention = torch.tensor([[[0.02, 0.0, 0.08, 0.0, 0.02], [0.0, 0.04, 0.0, 0.04, 0.0]]], dtype=torch.float64)
    mask = torch.ones(1, 5, dtype=torch.bool)
    shares = last_row(attention, mask, HeadMean())
    torch.testing.assert_close(shares, torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]], dtype=torch.float64))
    got = ABC()(attention, torch.tensor([1.5], dtype=torch.float64), mask)
    torch.testing.assert_close(got, torch.tensor([[0.12, 0.24, 0.48, 0.24, 0.42]], dtype=torch.float64))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("heads", [HeadMean(), LargestHead()])
def test_the_sum_is_the_sequence_reward(share: float, heads: HeadMean | LargestHead) -> None:
    attention, total, mask = draw()
    method = ABC(share=share, heads=heads)
    got = method(attention, total, mask)
    torch.testing.assert_close(got.sum(1), total, rtol=0, atol=1e-12)
    torch.testing.assert_close(method(attention, -total, mask), -got, rtol=0, atol=0)
    assert got[~mask].eq(0).all()


def test_shares_are_a_distribution_whatever_the_unit() -> None:
    attention, _, mask = draw()
    shares = last_row(attention, mask, HeadMean())
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(last_row(1e-6 * attention, mask, HeadMean()), shares, rtol=0, atol=1e-12)
    assert not torch.allclose(last_row(attention, mask, LargestHead()), shares)


def test_limits() -> None:
    attention, total, mask = draw()
    assert torch.equal(ABC(share=0.0)(attention, total, mask), sparse_reward(total, mask))
    got = ABC(share=1.0)(torch.ones_like(attention), total, mask)
    torch.testing.assert_close(got, uniform_shares(mask, torch.float64) * total[:, None], rtol=0, atol=1e-12)


def test_no_attention_on_the_answer_gives_equal_shares() -> None:
    mask = torch.tensor([[True, True, False]])
    assert normalise_attention(torch.tensor([[0.0, 0.0, 1.0]]), mask).tolist() == [[0.5, 0.5, 0.0]]


def test_padding_garbage_and_gradient() -> None:
    attention, total, mask = draw()
    want = ABC()(attention, total, mask)
    for left, right in ((3, 0), (0, 3), (2, 4)):
        pad = lambda block, left=left, right=right: torch.nn.functional.pad(block, (left, right))
        got = ABC()(pad(attention), total, pad(mask))
        torch.testing.assert_close(got[:, left : left + 8], want, rtol=0, atol=1e-15)
    for junk in (torch.nan, torch.inf):
        spoiled = attention.masked_fill(~mask[:, None], junk).requires_grad_()
        got = ABC()(spoiled, total.clone().requires_grad_(), mask)
        assert torch.equal(got, want)
        assert not got.requires_grad
    one_head = attention[:1, :1]
    torch.testing.assert_close(ABC()(one_head, total[:1], mask[:1]).sum(1), total[:1])


def loop(attention: Tensor, mask: Tensor) -> list[float]:
    """ABC-D of one answer by its definition; `attention` is (H, T, T) on the tokens of the mask."""
    rows = attention.mean(0)
    means = [0.0]
    for j in range(len(rows) - 1):
        seen = [float(rows[i, j]) for i in range(j + 1, len(rows))]
        means.append(sum(seen) / len(seen))
    return [mean / sum(means) for mean in means]


def test_decoder_variant_equals_a_loop() -> None:
    attention = torch.rand(1, 2, 6, 6, dtype=torch.float64).softmax(-1)
    for mask in (torch.ones(1, 6, dtype=torch.bool), torch.tensor([[False, True, True, False, True, True]])):
        inside = mask[0]
        want = torch.zeros(6, dtype=torch.float64)
        want[inside] = torch.tensor(loop(attention[0][:, inside][:, :, inside], inside), dtype=torch.float64)
        torch.testing.assert_close(generation_rows(attention, mask, HeadMean())[0], want, rtol=0, atol=1e-12)


def test_shifted() -> None:
    """Weights of tokens 1 and 2 go to tokens 2 and 3; the last token's own weight has nowhere to go."""
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    got = shift_shares(torch.tensor([[1.0, 3.0, 9.0, 9.0], [1.0, 0.0, 0.0, 0.0]]), mask)
    assert got.tolist() == [[0.0, 0.25, 0.75, 0.0], [1.0, 0.0, 0.0, 0.0]]
    total = torch.tensor([2.0, 3.0])
    torch.testing.assert_close(ABC().spread(got, total, mask).sum(1), total)


def test_entropy() -> None:
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    shares = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, torch.nan, 0.0]])
    torch.testing.assert_close(share_entropy(shares, mask), torch.tensor([math.log(4), 0.0]))


def test_undiscounted_return_is_the_sequence_reward() -> None:
    """gamma 1, no values: what the first token is credited with is R, for every share."""
    attention, total, mask = draw()
    for share in (0.0, 0.4, 1.0):
        to_go = ABC(share=share)(attention, total, mask).flip(1).cumsum(1).flip(1)
        torch.testing.assert_close(to_go[:, 0], total, rtol=0, atol=1e-12)


def test_a_share_is_checked() -> None:
    with pytest.raises(UsageError, match="share"):
        ABC(share=-0.5)


def test_equal_shares_are_as_precise_as_the_attention() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert normalise_attention(torch.zeros(1, 3, dtype=torch.float64), mask).tolist() == [[1 / 3] * 3]
