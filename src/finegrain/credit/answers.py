"""Converts ragged answers to padded blocks and back, for all credit methods."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from finegrain.errors import CreditError
from finegrain.ops.segmenters import check
from finegrain.types import CreditContext, Scored, TokenColumns, chunks

Signal = Mapping[str, Sequence[Scored | None]]
"""Token scores by role, each (T_i,); None for an answer without signal."""


class CreditedAnswer(NamedTuple):
    """One answer that has a signal."""

    role: str
    row: int
    positive: bool
    """True where the answer is to be reinforced."""
    mask: Bool[Tensor, " T"]
    scored: Scored
    """Float64, zero outside the mask."""
    total: float | None = None
    """A reward model's score of the answer; None: the sum of its tokens'."""


def side_name(answer: CreditedAnswer) -> str:
    """The name of an answer's side in messages and logs."""
    return answer.role if answer.role in ("chosen", "rejected") else f"{answer.role}, {'desirable' if answer.positive else 'undesirable'}"


def group_by_side(answers: Sequence[CreditedAnswer]) -> dict[str, list[int]]:
    """Positions of the answers of each side: a role, and where a role has both, desirable and undesirable."""
    found: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        found.setdefault(side_name(answer), []).append(place)
    return found


def find_signals(context: CreditContext, signal: Signal) -> list[CreditedAnswer]:
    """The answers that have a signal, zeroed outside the mask; raises where none has one, or where one is not finite."""
    answers = []
    for role, scored in signal.items():
        masks, signs = context.masks(role), context.signs[role]
        for row, (mask_, score) in enumerate(zip(masks, scored, strict=True)):
            mask = torch.from_numpy(np.asarray(mask_, dtype=bool))
            if score is None or not bool(mask.any()):
                continue
            parts = [None if part is None else _clean(part, mask, role, row) for part in score]
            if parts[0] is None:
                raise CreditError(f"row {row}, {role}: the signal has an uncertainty but no mean; give both")
            answers.append(CreditedAnswer(role, row, bool(signs[row] > 0), mask, Scored(parts[0], parts[1], parts[2])))
    if not answers:
        raise CreditError(
            "no answer has a signal, so there is no credit; annotate answers with character spans, "
            "add <role>_token_reward columns, or set --credit.scorer"
        )
    return answers


def _clean(part: Tensor, mask: Bool[Tensor, " T"], role: str, row: int) -> Tensor:
    """The part in float64, zero outside the mask."""
    if part.shape[-1:] != mask.shape:
        raise CreditError(
            f"row {row}, {role}: the signal has {part.shape[-1]} values, but the answer has {len(mask)} tokens; give one value per token"
        )
    clean = torch.where(mask, part.detach().cpu().double(), 0.0)
    if not bool(clean.isfinite().all()):
        raise CreditError(f"row {row}, {role}: the signal is not finite; remove the row's signal or correct it")
    return clean


def map_blocks(
    function: Callable[..., Shaped[Tensor, "B T"]], *ragged: Sequence[Shaped[Tensor, " _"]], size: int = 256
) -> list[Shaped[Tensor, " _"]]:
    """Applies the function to right-padded (B, T) blocks of answers of similar length; padding is False and 0. Linear in the number of tokens."""
    lengths = [len(values) for values in ragged[0]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    results: list[Tensor] = [torch.empty(0)] * len(lengths)
    for block in chunks(len(order), size):
        places = order[block]
        padded = [torch.nn.utils.rnn.pad_sequence([column[place] for place in places], batch_first=True) for column in ragged]
        for place, row in zip(places, function(*padded), strict=True):
            results[place] = row[: lengths[place]]
    return results


def score_segments(
    score: Callable[[Tensor, Tensor], Tensor], values: Sequence[Tensor], ids: Sequence[Tensor], masks: Sequence[Tensor]
) -> list[Float[Tensor, " _"]]:
    """A score of segments (values, ids) -> (B, T), at the tokens of every answer."""
    return map_blocks(lambda values, ids, mask: score(values, torch.where(mask, ids, -1)), values, ids, masks)


def make_columns(
    context: CreditContext,
    answers: Sequence[CreditedAnswer],
    *,
    weight: Sequence[Tensor] | None,
    reward: Sequence[Tensor] | None,
    segment: Sequence[Tensor] | None,
) -> dict[str, TokenColumns]:
    """Columns of all answers of every role; None where an answer had no signal, or where the method makes no such column."""

    def column(values: Sequence[Tensor] | None, dtype: type[np.generic]) -> dict[str, list[np.ndarray | None]]:
        rows: dict[str, list[np.ndarray | None]] = {role: [None] * len(signs) for role, signs in context.signs.items()}
        for answer, value in zip(answers, values or [], strict=False):
            rows[answer.role][answer.row] = value.numpy().astype(dtype)
        return rows

    weights, rewards, segments = column(weight, np.float32), column(reward, np.float32), column(segment, np.int32)
    has = {(answer.role, answer.row) for answer in answers}
    return {
        role: TokenColumns(weights[role], rewards[role], segments[role], [(role, row) in has for row in range(len(signs))])
        for role, signs in context.signs.items()
    }


def check_kept_bounds(low: float, high: float) -> None:
    """Raises UsageError where the smallest and the largest kept share are none."""
    check(0 <= low < high <= 1, f"0 <= min_kept < max_kept <= 1 must hold, got {low} and {high}")


def check_kept_share(answers: Sequence[CreditedAnswer], weight: Sequence[Tensor], *, min_kept: float, max_kept: float, where: str = "credit") -> None:
    """Raises CreditError where a side keeps too few or too many of its tokens; answers without a signal do not count.

    `where`: what has these settings on the command line.
    """
    for side, places in group_by_side(answers).items():
        kept = sum(float(weight[place].sum()) for place in places)
        share = kept / sum(int(answers[place].mask.sum()) for place in places)
        if min_kept <= share <= max_kept:
            continue
        bound, why = (
            (f"below min_kept, {min_kept:.0%}", "nearly all its token scores contradict the label, so almost no token of this side would train")
            if share < min_kept
            else (f"above max_kept, {max_kept:.0%}", "nearly all its token scores agree with the label, so the credit would have no effect here")
        )
        raise CreditError(
            f"the credit keeps {share:.1%} of the tokens of {side} answers ({len(places)} answers with a signal), {bound}: {why}. "
            "The usual cause is a scorer whose zero is arbitrary (a raw reward head, or one that scores every answer the same way), or spans that "
            f"mark nothing, or everything, on this side; use {where}.baseline:batch-mean, another --credit.scorer, or other spans; "
            f"if this is what you want, set --{where}.min-kept 0 --{where}.max-kept 1"
        )
