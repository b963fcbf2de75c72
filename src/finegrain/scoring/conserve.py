"""Rewards of an answer's tokens, spans or numbers brought to the caller's tokens of the same text so that their sum stays.

`scoring.tokens.align_scores` gives a token the value of the characters it holds; here values are amounts, which are divided: a reward model's
token gives to every token of the caller in proportion to the characters they share. What stands on no character that the caller's tokens hold
(an end token, a blank that no token covers) goes to the token there: an end token's to the last token, others' to the one before.
"""

import numpy as np
from jaxtyping import Float, Int

from finegrain.data.records import Response
from finegrain.errors import UsageError
from finegrain.scoring.records import Scores

Amounts = Float[np.ndarray, " T"]


def conserve_scores(scores: Scores, own: Response) -> Amounts | None:
    """(T,) float64 rewards of the caller's tokens, 0 off the mask; None where nothing stands on tokens, or there is none.

    Numbers per token belong to the caller's tokens, with or without one for the end token; raises UsageError for another number of them.
    """
    if not own.mask.any():
        return None
    if scores.tokens is not None and scores.response is not None:
        response = scores.response
        values = np.where(response.mask, scores.tokens.mean.double().numpy(), 0.0)
        return values if np.array_equal(response.ids, own.ids) else divide(values, response.offsets, own)
    if scores.numbers:
        return _one_each(np.array(scores.numbers, dtype=np.float64), own)
    if scores.spans:
        places = np.array([(span.start, span.end) for span in scores.spans])
        return divide(np.array([span.value for span in scores.spans], dtype=np.float64), places, own)
    return None


def divide(values: Float[np.ndarray, " S"], places: Int[np.ndarray, "S 2"], own: Response) -> Amounts:
    """(T,) amounts of the tokens: `values` of pieces of the text (characters start..end-1), divided by the characters that a token shares."""
    tokens = np.flatnonzero(own.mask)
    start, end = own.offsets[tokens].T.astype(np.int64)
    first, last = places.T.astype(np.int64)
    shared = np.clip(np.minimum(last[:, None], end) - np.maximum(first[:, None], start), 0, None).astype(np.float64)
    whole = shared.sum(1)
    amounts = np.zeros(len(own.ids))
    held = whole > 0
    amounts[tokens] = (values[held, None] * shared[held] / whole[held, None]).sum(0)
    for piece in np.flatnonzero(~held & (values != 0)):
        amounts[tokens[_beside(int(piece), first, last, start, end)]] += values[piece]
    return amounts


def _beside(piece: int, first: np.ndarray, last: np.ndarray, start: np.ndarray, end: np.ndarray) -> int:
    """Which token has the reward of a piece that shares no character with any."""
    wide = np.flatnonzero(last > first)
    if first[piece] == last[piece] and (not len(wide) or piece > wide[-1]):
        return len(start) - 1
    reached = last[piece] if last[piece] > first[piece] else last[: piece + 1].max()
    before = np.flatnonzero((end > start) & (start < reached))
    return int(before[-1]) if len(before) else 0


def _one_each(numbers: Float[np.ndarray, " N"], own: Response) -> Amounts:
    ends = bool(own.mask[-1]) and bool(own.offsets[-1, 0] == own.offsets[-1, 1])
    if len(numbers) == len(own.ids) - 1 and ends:
        numbers = np.append(numbers, 0.0)
    if len(numbers) != len(own.ids):
        raise UsageError(f"{len(numbers)} rewards for an answer of {len(own.ids)} tokens, the end token counted")
    return np.where(own.mask, numbers, 0.0)
