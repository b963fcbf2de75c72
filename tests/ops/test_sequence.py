"""Sequence sums, averages and lengths under token credit; token log-probabilities from logits."""

from dataclasses import replace

import torch

from finegrain.ops.sequence import (
    average_log_ratio,
    average_logp,
    implicit_reward,
    kept_length,
    kept_weight,
    log_ratio,
    reference_logp,
    sequence_logp,
    token_logps,
)
from finegrain.types import Side
from tests.objectives.worked import close, even_side


def side() -> Side:
    """Log-ratios 1, 2, 4 with weights 1, 0.5, 0.25, and an empty row."""
    nan = torch.nan
    return Side(
        logp=torch.tensor([[-1.0, -2.0, -3.0, nan], [nan] * 4], dtype=torch.float64),
        ref_logp=torch.tensor([[-2.0, -4.0, -7.0, nan], [nan] * 4], dtype=torch.float64),
        mask=torch.tensor([[True, True, True, False], [False] * 4]),
        weight=torch.tensor([[1.0, 0.5, 0.25, nan], [nan] * 4], dtype=torch.float64),
    )


def test_by_hand() -> None:
    close(sequence_logp(side()), -2.75, 0.0)
    close(reference_logp(side()), -5.75, 0.0)
    close(log_ratio(side()), 3.0, 0.0)
    close(implicit_reward(side(), beta=0.1), 0.3, 0.0)
    close(kept_weight(side()), 1.75, 0.0)
    close(kept_length(side()), 1.75, 1.0)
    close(average_logp(side()), -2.75 / 1.75, 0.0)
    close(average_log_ratio(side()), 3 / 1.75, 0.0)


def test_no_weight_is_weight_one() -> None:
    bare = replace(side(), weight=None)
    close(sequence_logp(bare), -6.0, 0.0)
    close(kept_weight(bare), 3.0, 0.0)


def test_a_row_whose_weights_are_all_zero_has_average_zero() -> None:
    dropped = even_side(-10, -11, 5)
    dropped = replace(dropped, weight=torch.zeros_like(dropped.logp))
    close(average_logp(dropped), 0.0)
    close(kept_length(dropped), 1.0)


def test_half_precision_is_summed_in_single() -> None:
    long = Side(logp=torch.full((1, 4000), -1.0078125, dtype=torch.bfloat16), mask=torch.ones(1, 4000, dtype=torch.bool))
    assert sequence_logp(long).dtype == torch.float32
    assert sequence_logp(long).item() == -4031.25


def test_the_implicit_reward_is_detached() -> None:
    live = even_side(-10, -11, 5)
    assert not implicit_reward(replace(live, logp=live.logp.requires_grad_()), beta=0.1).requires_grad


def test_logits_predict_the_next_label() -> None:
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[1, -100, 3, 0], [2, 4, -100, -100]])
    logp, mask = token_logps(logits, labels)
    assert mask.tolist() == [[False, True, True], [True, False, False]]
    for row, t, label in ((0, 1, 3), (0, 2, 0), (1, 0, 4)):
        want = logits[row, t, label] - logits[row, t].exp().sum().log()
        torch.testing.assert_close(logp[row, t], want, rtol=0, atol=1e-12)
    assert not logp[~mask].any()


def test_little_weight_is_still_a_divisor() -> None:
    light = Side(logp=torch.tensor([[-2.0]]).double(), mask=torch.ones(1, 1).bool(), weight=torch.tensor([[0.25]]).double())
    close(kept_length(light), 0.25)
    close(average_logp(light), -2.0)
