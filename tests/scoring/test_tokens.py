"""Scores brought from the tokens of one tokenizer to those of another."""

from itertools import pairwise

import numpy as np
import torch

from finegrain.data.records import Response
from finegrain.scoring.tokens import align_tokens


def response(cuts: list[int], *, end: bool = True, seed: int = 3) -> Response:
    """A text cut at these characters, closed by an end token."""
    offsets = np.array([*pairwise(cuts), *([(0, 0)] if end else [])], dtype=np.int32)
    ids = (np.arange(len(offsets)) + seed).astype(np.int32)
    return Response(ids, np.ones(len(ids), bool), offsets, "x" * cuts[-1])


def test_equal_cuts_give_the_values_back() -> None:
    """Other ids, so that the way leads through spans; the end token's value, which no span can hold, goes to the end token."""
    values = torch.tensor([0.5, -1.25, 3.0, 7.0], dtype=torch.float64)
    moved = align_tokens(values, response([0, 2, 5, 9]), response([0, 2, 5, 9], seed=50))
    assert moved.tolist() == values.tolist()
    same = response([0, 2, 5, 9])
    assert align_tokens(values, same, same) is values


def test_other_cuts_take_the_value_of_half_their_characters() -> None:
    """Characters 0-3 carry 1, 4-7 carry 2. A token of 0-1: 1; of 2-6: three of five characters carry 2; of 7: 2; then the end."""
    values = torch.tensor([1.0, 2.0, 9.0], dtype=torch.float64)
    assert align_tokens(values, response([0, 4, 8]), response([0, 2, 7, 8], seed=50)).tolist() == [1.0, 2.0, 2.0, 9.0]
    whole = align_tokens(values[:2], response([0, 4, 8], end=False), response([0, 4, 8, 12], seed=50))
    assert whole.tolist() == [1.0, 2.0, 0.0, 0.0], "what the reward model had cut says nothing"


def test_masked_tokens_stay_zero() -> None:
    own = response([0, 4, 8], seed=50)
    own.mask[0] = False
    assert align_tokens(torch.tensor([1.0, 2.0, 9.0]), response([0, 4, 8]), own).tolist() == [0.0, 2.0, 9.0]
