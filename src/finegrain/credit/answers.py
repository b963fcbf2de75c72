"""Converts ragged answers to padded blocks and back, for all credit methods."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from finegrain.credit.context import CreditContext
from finegrain.errors import CreditError
from finegrain.types import Scored, TokenColumns, chunks

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
    reward_std: Sequence[Tensor] | None = None,
) -> dict[str, TokenColumns]:
    """Columns of all answers of every role; None where an answer had no signal, or where the method makes no such column.

    Raises CreditError for weights that are all 0.
    """

    if weight is not None and not any(bool(own.any()) for own in weight):
        raise CreditError("the credit gives every token the weight 0, so no token would train; take another segmenter, allocation or signal")

    def column(values: Sequence[Tensor] | None, dtype: type[np.generic]) -> dict[str, list[np.ndarray | None]]:
        rows: dict[str, list[np.ndarray | None]] = {role: [None] * len(signs) for role, signs in context.signs.items()}
        for answer, value in zip(answers, values or [], strict=False):
            rows[answer.role][answer.row] = value.numpy().astype(dtype)
        return rows

    weights, rewards, segments = column(weight, np.float32), column(reward, np.float32), column(segment, np.int32)
    stds = column(reward_std, np.float32) if reward_std else {}
    has = {(answer.role, answer.row) for answer in answers}
    return {
        role: TokenColumns(weights[role], rewards[role], segments[role], [(role, row) in has for row in range(len(signs))], reward_std=stds.get(role))
        for role, signs in context.signs.items()
    }


def known_stds(answers: Sequence[CreditedAnswer]) -> list[Tensor] | None:
    """The signal's own standard deviation of every token, else that over its members; None where some answer has neither."""
    found = [answer.scored.std if answer.scored.std is not None else _over_members(answer.scored.members) for answer in answers]
    known = [std for std in found if std is not None]
    return known if len(known) == len(answers) else None


def _over_members(members: Tensor | None) -> Tensor | None:
    return None if members is None or len(members) < 2 else members.std(0)
