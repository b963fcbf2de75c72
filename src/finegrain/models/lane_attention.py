"""Attention of new tokens on answers that grow: a prompt's keys and values once per prompt, each answer's own in a block with indexed writes.

The function is registered with transformers under `NAME` and receives as the keyword `lanes` either `Opening`, which reads prompts and keeps
their keys and values, or `Feeding`, which appends tokens to answers. Nothing is padded on the left and nothing has a common write position: a
token attends to the prefixes of its answer and to the answer's own tokens up to itself, by their true positions, hence windows are exact.
The softmax runs over every part apart, and the parts are joined by their largest score and their sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface

from finegrain.models.attention import Branches, branched_attention

NAME = "finegrain-lanes"
FIRST_ROOM = 32
"""Tokens for which an answer's block has room at first; half as many again when full."""


class KeyValues(NamedTuple):
    """Of one layer."""

    keys: Float[Tensor, "S kv L D"]
    values: Float[Tensor, "S kv L E"]


@dataclass(eq=False)
class Stack:
    """Prefixes that are never written again, S of them, padded on the right to L tokens."""

    starts: np.ndarray
    """(S,) position of each prefix's first token."""
    lengths: np.ndarray
    """(S,)."""
    layers: dict[nn.Module, KeyValues] = field(default_factory=dict)


@dataclass(eq=False)
class OwnBlock:
    """The answers' own keys and values: one slot per answer, room for L tokens each."""

    slots: int = 0
    room: int = FIRST_ROOM
    layers: dict[nn.Module, KeyValues] = field(default_factory=dict)

    def reserve(self, slots: int, room: int) -> None:
        """Makes room from the next write on, by a half or a quarter more at least."""
        while self.room < room:
            self.room += self.room // 2
        if self.slots < slots:
            self.slots = max(slots, self.slots + self.slots // 4)

    def of(self, module: nn.Module, key: Tensor, value: Tensor) -> KeyValues:
        """The layer's block, enlarged where it is too small. `key`, `value`: (N, kv, D), of the dtype and device to come."""
        found = self.layers.get(module)
        if found is None or found.keys.shape[0] < self.slots or found.keys.shape[2] < self.room:
            old = found or (None, None)
            self.layers[module] = found = KeyValues(
                *(_enlarged(part, self.slots, self.room, one) for part, one in zip(old, (key, value), strict=True))
            )
        return found

    def move(self, slot: int, to: int, length: int) -> None:
        """The first tokens of a slot, copied to another one."""
        for part in (part for layer in self.layers.values() for part in layer):
            part[to, :, :length] = part[slot, :, :length]

    def copy(self, slot: int, length: int) -> dict[nn.Module, KeyValues]:
        """The first tokens of a slot as the only prefix of a stack."""
        return {module: KeyValues(*(part[slot : slot + 1, :, :length].clone() for part in layer)) for module, layer in self.layers.items()}


def _enlarged(old: Tensor | None, slots: int, room: int, like: Tensor) -> Tensor:
    new = like.new_zeros(slots, like.shape[1], room, like.shape[2])
    if old is not None:
        new[: old.shape[0], :, : old.shape[2]] = old
    return new


@dataclass(eq=False)
class Opening:
    """A packed row of prompts, whose keys and values become a stack."""

    branches: Branches
    stack: Stack

    def keep(self, module: nn.Module, key: Float[Tensor, "1 kv N D"], value: Float[Tensor, "1 kv N E"]) -> None:
        """Takes the layer's keys and values out of the packed row."""
        lengths = self.stack.lengths
        most = int(lengths.max())
        row = np.repeat(np.arange(len(lengths)), lengths)
        place = np.concatenate([np.arange(length) for length in lengths])
        places = torch.from_numpy(row * most + place).to(key.device)

        def laid_out(packed: Tensor) -> Tensor:
            _, heads, _, width = packed.shape
            flat = packed.new_zeros(len(lengths) * most, heads, width)
            flat[places] = packed[0, :, : len(places)].transpose(0, 1)
            return flat.view(len(lengths), most, heads, width).transpose(1, 2).contiguous()

        self.stack.layers[module] = KeyValues(laid_out(key), laid_out(value))


class Attended(NamedTuple):
    """Attention of N tokens to a part of their keys, before the division by the sum."""

    outputs: Float[Tensor, "N H E"]
    sums: Float[Tensor, "N H"]
    tops: Float[Tensor, "N H"]
    """Largest score; the most negative number where a token sees no key of this part."""


class Grouped(NamedTuple):
    """Tokens padded to the same number for every row of keys; None where they stand so already."""

    rows: int
    most: int
    gather: Tensor | None
    """(rows * most,) which token stands at a place; any one at padding."""
    places: Tensor | None
    """(N,) where each token stands."""
    tokens: np.ndarray
    """(rows, most) the same as `gather`, for masks."""


def group_tokens(row: np.ndarray, rows: int, device: torch.device) -> Grouped:
    """Groups tokens by the row of keys that each of them reads, in the order of the tokens. `row`: (N,)."""
    counts = np.bincount(row, minlength=rows)
    most = int(counts.max())
    order = np.argsort(row, kind="stable")
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = np.empty(len(row), dtype=np.int64)
    places[order] = row[order] * most + within
    tokens = np.zeros(rows * most, dtype=np.int64)
    tokens[places] = np.arange(len(row))
    if len(row) == rows * most and (places == np.arange(len(row))).all():
        return Grouped(rows, most, None, None, tokens.reshape(rows, most))
    gather, back = (torch.from_numpy(array).to(device) for array in (tokens, places))
    return Grouped(rows, most, gather, back, tokens.reshape(rows, most))


def _attend(
    query: Float[Tensor, "N H D"], layer: KeyValues, grouped: Grouped, mask: Float[Tensor, "R m L"] | None, softcap: float | None
) -> Attended:
    """Attention of every token to the keys of its row. `query` is scaled."""
    heads, kv = query.shape[1], layer.keys.shape[1]
    repeat = heads // kv
    queries = query if grouped.gather is None else query.index_select(0, grouped.gather)
    queries = queries.view(grouped.rows, grouped.most, kv, repeat, -1).permute(0, 2, 1, 3, 4).reshape(grouped.rows, kv, grouped.most * repeat, -1)
    scores = queries @ layer.keys.transpose(-1, -2)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = (scores.view(grouped.rows, kv, grouped.most, repeat, -1) + mask[:, None, :, None]).view(scores.shape)
    tops = scores.amax(-1).clamp_min_(torch.finfo(scores.dtype).min)
    weights = scores.sub_(tops[..., None]).exp_()
    outputs = weights.to(layer.values.dtype) @ layer.values

    def by_token(values: Tensor) -> Tensor:
        flat = values.view(grouped.rows, kv, grouped.most, repeat, -1).transpose(1, 2).reshape(grouped.rows * grouped.most, heads, -1)
        return flat if grouped.places is None else flat.index_select(0, grouped.places)

    return Attended(by_token(outputs), by_token(weights.sum(-1))[..., 0], by_token(tops)[..., 0])


@dataclass(eq=False)
class Prefixes:
    """A stack, and the tokens of a feed that read it."""

    stack: Stack
    tokens: Tensor | None
    """(M,) their places in the feed; None for all of them."""
    positions: np.ndarray
    """(M,)."""
    grouped: Grouped

    def mask(self, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """(S, m, L): 0 where a token sees a key of its prefix; None where each sees all."""
        lengths, place = self.stack.lengths, np.arange(int(self.stack.lengths.max()))
        seen = np.repeat((place < lengths[:, None])[:, None], self.grouped.most, axis=1)
        if window is not None:
            distance = self.positions[self.grouped.tokens][..., None] - (self.stack.starts[:, None] + place)[:, None]
            seen &= distance < window
        return _additive(seen, dtype, device)


def _additive(seen: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    if seen.all():
        return None
    return torch.where(torch.from_numpy(seen), 0.0, float("-inf")).to(dtype).to(device)


@dataclass(eq=False)
class Feeding:
    """N new tokens of R answers: where they stand, and which prefixes they read."""

    block: OwnBlock
    slots: np.ndarray
    """(R,) of the answers."""
    lane: np.ndarray
    """(N,) which answer a token belongs to, 0 .. R - 1."""
    own: np.ndarray
    """(N,) the token's place among its answer's own tokens."""
    prefixes: Sequence[Prefixes]
    device: torch.device
    masks: dict[tuple[int | None, torch.dtype], tuple[Tensor | None, ...]] = field(default_factory=dict)
    """By window: that of the own tokens, and of every stack."""

    def __post_init__(self) -> None:
        self.grouped = group_tokens(self.lane, len(self.slots), self.device)
        self.reach = int(self.own.max()) + 1
        self.in_place = bool((self.slots == np.arange(len(self.slots))).all())
        self.where = torch.from_numpy(self.slots[self.lane]).to(self.device), torch.from_numpy(self.own).to(self.device)
        self.rows = torch.from_numpy(self.slots).to(self.device)
        self.even = (
            self.in_place
            and self.grouped.gather is None
            and bool((self.own.reshape(self.grouped.tokens.shape) == self.own[: self.grouped.most]).all())
        )

    def write(self, module: nn.Module, key: Float[Tensor, "N kv D"], value: Float[Tensor, "N kv E"]) -> KeyValues:
        """Keeps the tokens' keys and values, and returns those of all answers of the feed up to the longest one's end."""
        block = self.block.of(module, key, value)
        for part, new in zip(block, (key, value), strict=True):
            if self.even:
                first, most = int(self.own[0]), self.grouped.most
                part[: len(self.slots), :, first : first + most] = new.view(len(self.slots), most, *new.shape[1:]).transpose(1, 2)
            else:
                part[self.where[0], :, self.where[1]] = new
        if self.in_place:
            return KeyValues(*(part[: len(self.slots), :, : self.reach] for part in block))
        return KeyValues(*(part[:, :, : self.reach].index_select(0, self.rows) for part in block))

    def masks_of(self, window: int | None, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
        """Additive masks of the own tokens (R, m, reach) and of every stack, the same for all layers of one window."""
        if (window, dtype) not in self.masks:
            own = self.own[self.grouped.tokens][..., None]
            key = np.arange(self.reach)
            seen = key <= own if window is None else (key <= own) & (own - key < window)
            self.masks[window, dtype] = (
                _additive(seen, dtype, self.device),
                *(prefix.mask(window, dtype, self.device) for prefix in self.prefixes),
            )
        return self.masks[window, dtype]

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, window: int | None, softcap: float | None
    ) -> Float[Tensor, "N H E"]:
        """Outputs of the tokens; their keys and values are kept. `query` (N, H, D) is scaled."""
        own = self.write(module, key, value)
        own_mask, *prefix_masks = self.masks_of(window, torch.promote_types(query.dtype, torch.float32))
        joined = _attend(query, own, self.grouped, own_mask, softcap)
        for prefix, mask in zip(self.prefixes, prefix_masks, strict=True):
            part = query if prefix.tokens is None else query.index_select(0, prefix.tokens)
            other = _attend(part, prefix.stack.layers[module], prefix.grouped, mask, softcap)
            joined = _join(joined, other, prefix.tokens)
        return (joined.outputs / joined.sums[..., None]).to(value.dtype)


def _join(one: Attended, other: Attended, tokens: Tensor | None) -> Attended:
    """The attention to two parts of the keys as one; `tokens`: those that the other has, None for all."""
    whole = one
    if tokens is not None:
        one = Attended(*(values.index_select(0, tokens) for values in one))
    tops = torch.maximum(one.tops, other.tops)
    first, second = (one.tops - tops).exp_(), (other.tops - tops).exp_()
    found = Attended(one.outputs * first[..., None] + other.outputs * second[..., None], one.sums * first + other.sums * second, tops)
    return (
        found if tokens is None else Attended(*(values.index_copy(0, tokens, new.to(values.dtype)) for values, new in zip(whole, found, strict=True)))
    )


def lane_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads N D"],
    key: Float[Tensor, "1 kv N D"],
    value: Float[Tensor, "1 kv N E"],
    attention_mask: Tensor | None,
    *,
    lanes: Opening | Feeding | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **unsupported: object,
) -> tuple[Float[Tensor, "1 N heads E"], None]:
    """Outputs of every token given its own path; places of the row after the last token (padding) get 0."""
    if lanes is None:
        raise ValueError(f"the attention function {NAME!r} only runs opened and fed lanes; use the stock attention for other rows")
    if isinstance(lanes, Opening):
        lanes.keep(module, key, value)
        return branched_attention(
            module,
            query,
            key,
            value,
            attention_mask,
            branches=lanes.branches,
            scaling=scaling,
            dropout=dropout,
            sliding_window=sliding_window,
            softcap=softcap,
            s_aux=unsupported.get("s_aux"),
            position_bias=unsupported.get("position_bias"),
            head_mask=unsupported.get("head_mask"),
        )
    strange = [name for name, setting in unsupported.items() if name in ("s_aux", "position_bias", "head_mask") and setting is not None]
    if strange or attention_mask is not None or dropout:
        raise NotImplementedError(f"attention with {strange or 'a mask or dropout'} does not run on lanes")
    count, total = len(lanes.lane), query.shape[2]
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    if torch.is_autocast_enabled(query.device.type):
        query, key, value = (tensor.to(torch.get_autocast_dtype(query.device.type)) for tensor in (query, key, value))
    queries, keys, values = (tensor[0, :, :count].transpose(0, 1) for tensor in (query * scaling, key, value))
    outputs = lanes.attend(module, queries, keys, values, sliding_window, softcap)
    if total > count:
        outputs = torch.cat([outputs, outputs.new_zeros(total - count, *outputs.shape[1:])])
    return outputs[None], None


def register() -> None:
    """Registers the function with transformers, without a mask function, as `models.attention` does."""
    AttentionInterface.register(NAME, lane_attention)
