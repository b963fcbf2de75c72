"""Means of token losses: by hand, with answers that do not train, and cut into micro-batches."""

import pytest
import torch

from finegrain.online.aggregate import Aggregate, SeqMeanTokenMean, SeqMeanTokenSum, SeqMeanTokenSumNorm, TokenMean

LOSSES = torch.tensor([[1.0, 2.0, 3.0], [5.0, torch.nan, torch.nan], [torch.nan] * 3])
WEIGHT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
WANT = {TokenMean(): 11 / 4, SeqMeanTokenMean(): 7 / 2, SeqMeanTokenSum(): 11 / 2, SeqMeanTokenSumNorm(length=10): 11 / 20}


def mean(aggregate: Aggregate, cuts: list[slice]) -> float:
    terms = [aggregate(LOSSES[cut], WEIGHT[cut]) for cut in cuts]
    return float(sum(term.value.sum() for term in terms) / sum(term.count.sum() for term in terms))


@pytest.mark.parametrize("aggregate", WANT, ids=repr)
def test_by_hand_and_in_micro_batches(aggregate: Aggregate) -> None:
    assert mean(aggregate, [slice(0, 3)]) == pytest.approx(WANT[aggregate])
    assert mean(aggregate, [slice(0, 1), slice(1, 3)]) == pytest.approx(WANT[aggregate])


def test_a_mean_of_micro_batch_means_is_another_number() -> None:
    """Why counts are global."""
    apart = [mean(TokenMean(), [slice(0, 1)]), mean(TokenMean(), [slice(1, 2)])]
    assert sum(apart) / 2 != pytest.approx(WANT[TokenMean()])


def test_weights_weigh() -> None:
    term = TokenMean()(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 1.5]]))
    assert (term.value.tolist(), term.count.tolist()) == ([5.0], [2.0])
    few = SeqMeanTokenMean()(torch.tensor([[4.0, 9.0]]), torch.tensor([[0.25, 0.0]]))
    assert (few.value.tolist(), few.count.tolist()) == ([1.0], [1.0])
