"""Masked sums and means by hand, down to one token and to none."""

import torch

from finegrain.ops.masked import masked_mean, masked_sum

VALUES = torch.tensor([[3.0, torch.nan, 5.0], [torch.inf, 7.0, torch.nan], [torch.nan] * 3])
MASK = torch.tensor([[True, False, True], [False, True, False], [False] * 3])


def test_by_hand() -> None:
    assert masked_sum(VALUES, MASK).tolist() == [8.0, 7.0, 0.0]
    assert masked_mean(VALUES, MASK).tolist() == [4.0, 7.0, 0.0]
