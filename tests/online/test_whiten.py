"""Whitening over the tokens of a buffer: moments, both variances, what a single token becomes."""

import pytest
import torch

from finegrain.online.whiten import CentreTokens, Unwhitened, WhitenBiased, Whitening, WhitenUnbiased, moments

MASK = torch.tensor([[True, True, True], [True, False, False]])
VALUES = torch.tensor([[1.0, 2.0, 3.0], [6.0, torch.nan, torch.inf]], dtype=torch.float64)


def test_by_hand() -> None:
    """1, 2, 3, 6: mean 3, squared deviations 14."""
    found = moments(VALUES, MASK)
    assert (float(found.mean), float(found.variance)) == pytest.approx((3, 14 / 3))
    assert float(moments(VALUES, MASK, unbiased=False).variance) == pytest.approx(3.5)
    deviations = torch.tensor([[-2.0, -1.0, 0.0], [3.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(WhitenUnbiased()(VALUES, MASK), deviations / (14 / 3 + 1e-8) ** 0.5)
    torch.testing.assert_close(WhitenBiased()(VALUES, MASK), deviations / 3.5**0.5)
    torch.testing.assert_close(CentreTokens()(VALUES, MASK), deviations)
    assert Unwhitened()(VALUES, MASK).tolist() == [[1, 2, 3], [6, 0, 0]]


def test_the_mean_can_stay() -> None:
    torch.testing.assert_close(found_mean(keep=True), torch.tensor(3.0, dtype=torch.float64))
    assert float(found_mean(keep=False)) == pytest.approx(0, abs=1e-12)


def found_mean(*, keep: bool) -> torch.Tensor:
    return moments(VALUES, MASK).whiten(VALUES, keep_mean=keep)[MASK].mean()


@pytest.mark.parametrize("whitening", [WhitenUnbiased(), WhitenBiased(), CentreTokens()])
def test_one_token_and_none(whitening: Whitening) -> None:
    """Where verl stops and TRL gives NaN."""
    assert whitening(VALUES, torch.tensor([[True, False, False], [False, False, False]])).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert not whitening(VALUES, torch.zeros_like(MASK)).any()
