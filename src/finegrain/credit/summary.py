"""A summary of a credit's effect on the data, as a few numbers for the log.

Source: ours [OURS], for the masks of https://arxiv.org/abs/2411.00809: kept share per side, segments per response, share of
responses that keep no token, agreement of the signal's sign with the label.
Deviations: none. Computed over all answers with a signal, without sampling, so there is no interval.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from finegrain.types import Ragged, TokenColumns


def summarise(columns: Mapping[str, TokenColumns], masks: Mapping[str, Ragged], signs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Numbers by name, `credit/<what>/<role>`; a number that the columns cannot give is left out."""
    numbers: dict[str, float] = {}
    for role, column in columns.items():
        rows = [row for row, has in enumerate(column.annotated) if has and masks[role][row].any()]
        numbers[f"credit/annotated/{role}"] = len(rows) / max(1, len(column.annotated))
        tokens = sum(int(masks[role][row].sum()) for row in rows)
        kept = _on_mask(column.weight, masks[role], rows)
        if kept:
            numbers[f"credit/kept/{role}"] = float(sum(weight.sum() for weight in kept)) / tokens
            numbers[f"credit/dropped/{role}"] = sum(not weight.any() for weight in kept) / len(kept)
        ids = _on_mask(column.segment, masks[role], rows)
        if ids:
            numbers[f"credit/segments/{role}"] = sum(int(segment.max()) + 1 for segment in ids) / len(ids)
        rewards = _on_mask(column.reward, masks[role], rows)
        if rewards and ids:
            agree = sum(_agreement(reward, segment, signs[role][row]) for reward, segment, row in zip(rewards, ids, rows, strict=True))
            numbers[f"credit/agreement/{role}"] = agree / tokens
    return numbers


def _on_mask(values: Sequence[np.ndarray | None], masks: Ragged, rows: Sequence[int]) -> list[np.ndarray]:
    """The values of the tokens that train, or nothing where the column is empty."""
    present = [(values[row], masks[row]) for row in rows]
    return [value[mask] for value, mask in present if value is not None]


def _agreement(reward: np.ndarray, segment: np.ndarray, sign: float) -> int:
    """Tokens whose segment's mean reward has the sign of the label."""
    total = np.bincount(segment, weights=reward)
    return int((np.sign(total) == np.sign(sign))[segment].sum())
