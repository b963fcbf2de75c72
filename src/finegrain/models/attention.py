"""Attention over packed prompts with branches, in time linear in the number of groups.

A packed row is [prompt, answer, answer, ..., prompt, answer, ...]: every answer attends to its prompt and itself only.
The function is registered with transformers under `NAME` and receives the layout as the keyword `branches`, so it sees
queries and keys after rotary embedding, whatever the architecture. Positions restart at the end of the prompt for every
answer, hence a distance between positions is a distance along the path from the prompt, and windows are exact.
On CUDA one kernel computes the whole row of a layer; the blocked form is the reference for it, and runs on other devices.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from finegrain.models.short_attention import attend_short, is_short, lay_out_short

NAME = "finegrain"

QUERY_BLOCK = 128
"""Queries per call: causal attention by blocks skips the keys after each block."""


class Branches(NamedTuple):
    """Layout of a packed row: per group the prompt's length and the lengths of its answers, in tokens."""

    groups: tuple[tuple[int, ...], ...]

    def lengths(self) -> list[int]:
        """Lengths of all pieces in packed order."""
        return [length for group in self.groups for length in group]


class WatchedRows(NamedTuple):
    """Rows of attention weights that one layer is asked for."""

    layer: int
    queries: list[tuple[range, range]]
    """By answer, the places of its prompt and of its own tokens; the last of these is the query."""
    found: list[Tensor]
    """(H, T) per answer, in their order, once the layer has run: the weights of its own tokens."""

    def watch(self, query: Tensor, key: Tensor, window: int | None, scaling: float, softcap: float | None) -> None:
        """Computes them, in float32 or wider."""
        wide = torch.promote_types(query.dtype, torch.float32)
        repeat = query.shape[1] // key.shape[1]
        with torch.autocast(query.device.type, enabled=False):
            for prompt, own in self.queries:
                keys = torch.cat([key[0, :, prompt.start : prompt.stop], key[0, :, own.start : own.stop]], 1).to(wide)
                asked = query[0, :, own.stop - 1].to(wide).reshape(key.shape[1], repeat, -1)
                scores = (asked @ keys.transpose(-1, -2)).flatten(0, 1) * scaling
                if softcap is not None:
                    scores = softcap * torch.tanh(scores / softcap)
                if window is not None:
                    scores[:, : max(0, scores.shape[1] - window)] = float("-inf")
                self.found.append(torch.softmax(scores, -1)[:, len(prompt) :])


ALIGNED_BYTES, ALIGNED_COLUMNS = 16, 8
"""Rows of a mask start at multiples of both: CUDA's kernels read 16 bytes at a time, and check the strides but not the address, where a
fault ends the process."""


@lru_cache(maxsize=128)
def _band(reach: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(QUERY_BLOCK, reach + QUERY_BLOCK and a few): 0 where query i may see key j - reach, counted from the first query, -inf elsewhere."""
    query = torch.arange(QUERY_BLOCK, device=device)[:, None]
    key = torch.arange(-reach, QUERY_BLOCK + -reach % ALIGNED_COLUMNS, device=device)[None, :]
    seen = (key <= query) if window is None else (key <= query) & (query - key < window)
    return torch.where(seen, 0.0, float("-inf")).to(dtype)


def _additive_mask(queries: int, keys: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Mask of a block whose last query is at the last key: a view of one of a few bands, whatever the lengths."""
    before = keys - queries
    reach = (1 << max(before, QUERY_BLOCK).bit_length()) + before % (ALIGNED_BYTES // dtype.itemsize)
    return _band(reach, window, dtype, device)[:queries, reach - before : reach + queries]


def _piece(query: Tensor, key: Tensor, value: Tensor, window: int | None, scaling: float, softcap: float | None) -> Iterator[Tensor]:
    """Outputs (1, queries, heads, E) of one piece by blocks; its last query is at the last key.

    Keys are sliced only where a block does not see all of them: a slice costs a zero-filled gradient in the backward.
    """
    length, before = query.shape[2], key.shape[2] - query.shape[2]
    size = -(-length // max(1, -(-length // QUERY_BLOCK)))
    end = before
    for block in query.split(max(1, size), 2):  # type: ignore[no-untyped-call]
        start, end = end, end + block.shape[2]
        first = 0 if window is None else max(0, start - window + 1)
        whole = first == 0 and end == key.shape[2]
        keys, values = (key, value) if whole else (key[:, :, first:end], value[:, :, first:end])
        mask = _additive_mask(end - start, end - first, window, query.dtype, query.device)
        yield _attend(block, keys, values, mask, scaling, softcap).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, softcap: float | None) -> Tensor:
    """Attention of one block; written out with a soft-cap, and in bfloat16 on a CPU, where the kernel is four times slower."""
    if softcap is not None:
        scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * (scaling / softcap))
        wide = scores.dtype if scores.dtype == torch.float64 else torch.float32
        return torch.softmax(scores + mask, -1, dtype=wide).to(value.dtype) @ value
    if query.dtype == torch.bfloat16 and query.device.type == "cpu":
        query, key, value = (tensor[0].contiguous() for tensor in (query, key, value))  # else every product copies them, forward and backward
        scores = torch.baddbmm(mask.expand(len(query), *mask.shape), query, key.transpose(-1, -2), alpha=scaling)
        return (torch.softmax(scores, -1) @ value)[None]
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)


class Sequences(NamedTuple):
    """A packed row as separate sequences: the queries in place, the keys gathered, a prompt's once for itself and once for every answer."""

    keys: Tensor
    """Positions of the keys, (K,)."""
    query_ends: Tensor
    """(S + 1,) int32: where the queries of each sequence begin and end."""
    key_ends: Tensor
    longest_query: int
    longest_key: int


@lru_cache(maxsize=8)
def make_sequences(branches: Branches, device: torch.device) -> Sequences:
    """Prompts and answers of a row, each with its visible keys; the same for every layer."""
    keys: list[np.ndarray] = []
    queries: list[int] = []
    start = 0
    for group in branches.groups:
        prompt = np.arange(start, start + group[0])
        for place, length in enumerate(group):
            own = np.arange(start, start + length)
            if length:
                queries.append(length)
                keys.append(np.concatenate([prompt, own]) if place else own)
            start += length
    counts = [len(places) for places in keys]
    query_ends, key_ends = (torch.from_numpy(np.cumsum([0, *part]).astype(np.int32)).to(device) for part in (queries, counts))
    return Sequences(torch.from_numpy(np.concatenate(keys)).to(device), query_ends, key_ends, max(queries), max(counts))


VARLEN_DTYPES = (torch.bfloat16, torch.float16)
"""The dtypes the kernel supports."""


def _has_varlen(query: Tensor, value: Tensor, softcap: float | None) -> bool:
    """Whether one kernel can compute the whole row: on CUDA from compute capability 8 on, in half precision, without a soft-cap."""
    fits = softcap is None and query.dtype in VARLEN_DTYPES and query.shape[-1] == value.shape[-1] <= 256 and query.shape[-1] % 8 == 0
    return fits and query.device.type == "cuda" and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _by_varlen(query: Tensor, key: Tensor, value: Tensor, branches: Branches, window: int | None, scaling: float) -> Tensor:
    """(1, N, heads, E) by one call a layer; its causal mask ends where the last query meets the last key."""
    from torch.nn.attention.varlen import varlen_attn  # imports torch's compiler, a second of every start, and runs on CUDA only

    laid = make_sequences(branches, query.device)
    outputs = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1).index_select(0, laid.keys),
        value[0].transpose(0, 1).index_select(0, laid.keys),
        laid.query_ends,
        laid.key_ends,
        laid.longest_query,
        laid.longest_key,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(outputs, Tensor)
    return outputs[None]


def branched_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads N D"],
    key: Float[Tensor, "1 kv N D"],
    value: Float[Tensor, "1 kv N E"],
    attention_mask: Tensor | None,
    *,
    branches: Branches | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    watched: WatchedRows | None = None,
    **unsupported: object,
) -> tuple[Float[Tensor, "1 N heads E"], None]:
    """Outputs of every token given its own path; the second item (attention weights) is never computed, but for rows that are `watched`."""
    if branches is None:
        raise ValueError(f"the attention function {NAME!r} only runs packed rows; use the stock attention for other rows")
    strange = [name for name, setting in unsupported.items() if name in ("s_aux", "position_bias", "head_mask") and setting is not None]
    if strange or attention_mask is not None or dropout:
        raise NotImplementedError(f"attention with {strange or 'a mask or dropout'} is not packed")
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    if watched is not None and getattr(module, "layer_idx", None) == watched.layer:
        watched.watch(query, key, sliding_window, scaling, softcap)
    if torch.is_autocast_enabled(query.device.type):  # once per layer; the kernel's own cast would run once per block
        query, key, value = (tensor.to(torch.get_autocast_dtype(query.device.type)) for tensor in (query, key, value))
    if _has_varlen(query, value, softcap):
        return _by_varlen(query, key, value, branches, sliding_window, scaling), None
    if softcap is None and query.device.type == "cpu" and all(is_short(group) for group in branches.groups):
        wide = torch.promote_types(query.dtype, torch.float32)
        laid = lay_out_short(branches.groups, sliding_window, wide, query.device)
        with torch.autocast(query.device.type, enabled=False):
            return attend_short(query.to(wide), key.to(wide), value.to(wide), laid, scaling).to(query.dtype), None
    return _by_blocks(query, key, value, branches, sliding_window, scaling, softcap), None


def _by_blocks(query: Tensor, key: Tensor, value: Tensor, branches: Branches, window: int | None, scaling: float, softcap: float | None) -> Tensor:
    """(1, N, heads, E) by blocks of each prompt and answer."""
    lengths = branches.lengths()
    repeat = query.shape[1] // key.shape[1]
    pieces = zip(*(tensor.split(lengths, 2) for tensor in (query, key, value)), strict=True)  # type: ignore[no-untyped-call]
    outputs: list[Tensor] = []
    for group in branches.groups:
        prompt_key = prompt_value = None
        for _ in group:
            q, k, v = next(pieces)
            if repeat > 1:
                k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
            if prompt_key is None or prompt_value is None:
                prompt_key, prompt_value = k, v
            else:
                k, v = torch.cat([prompt_key, k], 2), torch.cat([prompt_value, v], 2)
            outputs.extend(_piece(q, k, v, window, scaling, softcap))
    return torch.cat(outputs, 1)


def register() -> None:
    """Registers the function with transformers. It has no mask function: transformers then makes no mask, and does not look for packed rows."""
    AttentionInterface.register(NAME, branched_attention)
