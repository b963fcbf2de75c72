"""One number per answer: worked values on ragged answers, and what lies under the mask plays no part."""

import pytest
import torch

from finegrain.ops.readout import Last, Mean, Minimum, NegativeNorm, Readout, Sum, last_place

VALUES = torch.tensor([[3.0, -4.0, 12.0, 9.0], [7.0, 2.0, 5.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
MASK = torch.tensor([[True, True, True, False], [False, True, False, True], [False] * 4])
WANT = {
    Sum(): [11.0, 3.0, 0.0],
    Mean(): [11 / 3, 1.5, 0.0],
    Last(): [12.0, 1.0, 0.0],
    Minimum(): [-4.0, 1.0, 0.0],
    NegativeNorm(): [-13.0, -(5**0.5), 0.0],
}


@pytest.mark.parametrize("readout", WANT, ids=lambda readout: type(readout).__name__)
def test_worked(readout: Readout) -> None:
    torch.testing.assert_close(readout(VALUES, MASK), torch.tensor(WANT[readout]))
    for junk in (torch.nan, torch.inf, -torch.inf):
        values = VALUES.masked_fill(~MASK, junk).requires_grad_()
        got = readout(values, MASK)
        torch.testing.assert_close(got, torch.tensor(WANT[readout]))
        (gradient,) = torch.autograd.grad(got.sum(), values)
        assert gradient[~MASK].eq(0).all()
        assert gradient.isfinite().all()
    assert readout(VALUES.bfloat16(), MASK).dtype == torch.float32


def test_last_place() -> None:
    assert last_place(MASK).tolist() == [[False, False, True, False], [False, False, False, True], [False] * 4]
