"""Segments of a response: (B, T) ids 0, 1, ... in order, -1 outside the mask; and reductions over them.

Every segmentation here has three properties: no segment is empty, none crosses a gap of the mask (a turn of another
role), and, except where every token is its own segment, the token that closes a turn (EOS) never starts a segment.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from finegrain.ops.peaks import order_left
from finegrain.ops.precision import to_widest


def turn_starts(mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """True on the first token of every contiguous run of the mask."""
    return mask & ~torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)


def turn_ends(mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """True on the last token of every contiguous run of the mask."""
    return mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)


def segments_from(starts: Bool[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Ids of the segments that begin at `starts` and at every turn; a closing token belongs to the segment before it."""
    opens = turn_starts(mask) | (starts & mask & ~turn_ends(mask))
    return torch.where(mask, opens.cumsum(1) - 1, -1)


def without_closing(ids: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """The same segments, renumbered, without the token that closes a turn, which is in none unless it is the turn's only one."""
    starts = (ids >= 0) & (ids != torch.cat([torch.full_like(ids[:, :1], -1), ids[:, :-1]], 1))
    return torch.where(turn_ends(mask) & ~turn_starts(mask), -1, segments_from(starts, mask))


def segment_tokens(mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Every token is its own segment, including EOS."""
    return torch.where(mask, mask.cumsum(1) - 1, -1)


def place_in_turn(mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """0, 1, 2 ... from the start of the token's turn; arbitrary outside the mask."""
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return place - torch.where(turn_starts(mask), place, 0).cummax(1).values


def segment_windows(mask: Bool[Tensor, "B T"], size: int) -> Int[Tensor, "B T"]:
    """Segments of `size` tokens, counted from the start of each turn."""
    return segments_from(place_in_turn(mask) % size == 0, mask)


def change_curve(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], window: int = 1) -> Float[Tensor, "B T"]:
    """c_t = |mean of the `window` values from t on - mean of the `window` values before t|; 0 at the start of a turn.

    Windows are truncated at the ends of the turn. With window 1 this is |r_t - r_(t-1)|.
    """
    values, place = torch.where(mask, values, 0.0), place_in_turn(mask)
    left = place_in_turn(mask.flip(1)).flip(1)
    after, before = values, torch.zeros_like(values)
    for step in range(1, window):
        after = after + torch.where(left >= step, values.roll(-step, 1), 0.0)
    for step in range(1, window + 1):
        before = before + torch.where(place >= step, values.roll(step, 1), 0.0)
    change = after / (left + 1).clamp(min=1, max=window) - before / place.clamp(min=1, max=window)
    return torch.where(mask & (place > 0), change.abs(), 0.0)


def segment_sum(values: Float[Tensor, "B T"], ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Every token gets the sum over its segment; 0 outside the mask."""
    here = ids.clamp(min=0)
    values = torch.where(ids >= 0, values, 0.0)
    return torch.where(ids >= 0, torch.zeros_like(values).scatter_add(1, here, values).gather(1, here), 0.0)


def segment_length(ids: Int[Tensor, "B T"], dtype: torch.dtype) -> Float[Tensor, "B T"]:
    """Every token gets the number of tokens of its segment; 0 outside the mask."""
    return segment_sum(torch.ones(ids.shape, dtype=dtype, device=ids.device), ids)


def segment_mean(values: Float[Tensor, "B T"], ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Every token gets the mean over its segment; 0 outside the mask."""
    return segment_sum(values, ids) / segment_length(ids, values.dtype).clamp(min=1)


def segment_last(values: Float[Tensor, "B T"], ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Every token gets the value at the last token of its segment; 0 outside the mask."""
    return segment_sum(torch.where(segment_ends(ids), values, 0.0), ids)


def segment_ends(ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """True on the last token of every segment."""
    following = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -1)], 1)
    return (ids >= 0) & (following != ids)


def place_in_row(ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """k / K of the k-th of a row's K segments, on each of its tokens; 0 outside the segments."""
    return to_widest(ids + 1) / (ids.max(1, keepdim=True).values + 1).clamp(min=1)


def noise_scale(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Robust standard deviation of the noise on a piecewise constant curve: median absolute first difference.

    First differences have variance 2 sigma^2 where the level is constant; the median is robust to the few where it is not.
    """
    difference = torch.where(mask & (place_in_turn(mask) > 0), (values - values.roll(1, 1)).abs(), torch.nan)
    return difference.nanmedian(1).values.nan_to_num(0.0) / (0.6744897501960817 * 2**0.5)


def change_points(
    values: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    noise: Float[Tensor, " B"],
    level: Float[Tensor, " B"],
    price: float,
) -> Bool[Tensor, "B T"]:
    """True where a segment starts in the most probable partition, exactly.

    Model: values have variance `noise` around the level of their segment, levels have variance `level` around 0.
    With the level integrated out, a segment of n values with sum S costs (-2 log likelihood, up to a constant)
    log(1 + n level / noise) - S^2 level / (noise (noise + n level)) + price. Optimal partitioning (Jackson et al. 2005),
    F(t) = min over s < t of F(s) + cost(s, t): quadratic in the length of a turn, vectorised over rows and s.
    """
    order = order_left(mask)
    present, place = mask.gather(1, order), torch.arange(mask.shape[1], device=mask.device)
    compact = torch.where(present, torch.where(mask, values, 0.0).gather(1, order), 0.0)
    turn = torch.where(turn_starts(mask).gather(1, order), place, 0).cummax(1).values
    signal, scale, scatter = (part.cpu().double().numpy() for part in (compact, noise, level))
    starts = _optimal_starts(signal, scale, scatter, turn.cpu().numpy(), present.sum(1).cpu().numpy(), price)
    return torch.zeros_like(mask).scatter(1, order, torch.from_numpy(starts).to(mask.device) & present)


def _optimal_starts(
    values: Float64[np.ndarray, "B T"],
    noise: Float64[np.ndarray, " B"],
    level: Float64[np.ndarray, " B"],
    turn: Int64[np.ndarray, "B T"],
    length: Int64[np.ndarray, " B"],
    price: float,
) -> Bool[np.ndarray, "B T"]:
    """The recursion and the backtracking, on left-aligned rows; `turn` is where a token's turn starts.

    In numpy: 2 T small steps on one thread; torch would use several threads, whose overhead exceeds the work.
    """
    rows, width = values.shape
    place, row = np.arange(width), np.arange(rows)
    total = np.concatenate([np.zeros((rows, 1)), values.cumsum(1)], 1)
    best, back = np.zeros((rows, width + 1)), np.zeros((rows, width + 1), dtype=np.int64)
    spread = noise[:, None] + np.arange(width, 0, -1) * level[:, None]  # noise + n level for n = width ... 1
    gain, fixed = level[:, None] / (noise[:, None] * spread), np.log(spread / noise[:, None]) + price
    for t in range(1, width + 1):
        cost = best[:, :t] + fixed[:, width - t :] - np.square(total[:, t, None] - total[:, :t]) * gain[:, width - t :]
        cost[place[:t] < turn[:, t - 1, None]] = np.inf
        back[:, t] = cost.argmin(1)
        best[:, t] = cost[row, back[:, t]]
    starts, at = np.zeros((rows, width), dtype=bool), length.copy()
    while at.any():
        at = np.where(at > 0, back[row, at], 0)
        starts[row, at] = True
    return starts
