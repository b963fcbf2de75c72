"""Answers that grow token by token from shared prompts: the engine of sampling, of drafts and of search.

A prompt is read once (`open`); answers branch from it (`fork`), take one or more tokens each in one packed pass (`feed`), forget their last tokens
(`cut`), become prompts of further answers (`split`), and leave (`drop`). Answers that are fed together may have any lengths.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.errors import ModelError
from finegrain.models import lane_attention
from finegrain.models.attention import Branches
from finegrain.models.lane_attention import Feeding, Opening, OwnBlock, Prefixes, Stack, group_tokens
from finegrain.models.scorer import causal_lm

ROW_MULTIPLE = 16
"""Packed rows are padded to a multiple of this, cf. `models.packing.ROW_MULTIPLE`: an answer that leaves makes no new shape of a product."""

Prefix = tuple[Stack, int]
"""A stack and the row of it."""


@dataclass(eq=False)
class Stem:
    """A prompt, or the beginning of an answer, from which answers branch."""

    path: tuple[Prefix, ...]
    length: int
    """Tokens, which is the position of the next one."""
    state: Float[Tensor, " H"]
    """Last hidden state of its last token, which predicts the first token of every answer."""


@dataclass(eq=False)
class Lane:
    """An answer."""

    path: tuple[Prefix, ...]
    start: int
    """Position of its first own token."""
    slot: int
    length: int = 0
    """Own tokens that were fed."""


class Lanes:
    """The answers that one model is growing. Weights must not change while there are any."""

    def __init__(self, model: Any) -> None:
        self._model = causal_lm(model)
        self._block = OwnBlock()
        self._live: list[Lane] = []
        config, weight = self._model.config.get_text_config(), next(self._model.parameters())
        self._token_bytes = 2 * config.num_hidden_layers * config.hidden_size * weight.element_size()

    @property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token; before a prompt was read, what they are where keys are as wide as states."""
        return int(self._token_bytes)

    def open(self, prompts: Sequence[np.ndarray]) -> list[Stem]:
        """Reads prompts of at least one token each in one packed row."""
        lengths = np.array([len(prompt) for prompt in prompts])
        assert lengths.min() > 0, "a prompt needs at least one token"
        total = int(lengths.sum())
        filling = -total % ROW_MULTIPLE
        groups = tuple((int(length),) for length in (*lengths, *([filling] if filling else [])))
        stack = Stack(np.zeros(len(prompts), dtype=np.int64), lengths)
        ids = np.concatenate([*prompts, np.zeros(filling)]).astype(np.int64)
        positions = np.concatenate([np.arange(group[0]) for group in groups])
        states = self._run(ids, positions, Opening(Branches(groups), stack))
        if not stack.layers:
            raise ModelError(f"the attention of {type(self._model).__name__} is not computed through transformers' interface")
        self._token_bytes = sum(part.shape[1] * part.shape[3] * part.element_size() for layer in stack.layers.values() for part in layer)
        ends = torch.from_numpy(np.cumsum(lengths) - 1).to(states.device)
        return [Stem(((stack, row),), int(lengths[row]), state) for row, state in enumerate(states.index_select(0, ends))]

    def fork(self, stem: Stem, count: int) -> list[Lane]:
        """Answers without a token; nothing is copied."""
        return [self._add(Lane(stem.path, stem.length, len(self._live))) for _ in range(count)]

    def feed(self, lanes: Sequence[Lane], ids: np.ndarray, counts: np.ndarray | None = None) -> Float[Tensor, "N H"]:
        """Appends tokens and returns the last hidden state of each.

        `ids`: (N,), those of each answer together. `counts`: (R,) how many each gets, one by default.
        """
        counts = np.ones(len(lanes), dtype=np.int64) if counts is None else np.asarray(counts)
        assert counts.min() > 0, "every answer takes at least one token"
        assert counts.sum() == len(ids), "the counts say how many tokens each answer gets"
        order = np.argsort([lane.slot for lane in lanes], kind="stable")
        if (order == np.arange(len(lanes))).all():
            return self._feed(lanes, ids, counts)
        places = np.argsort(order, kind="stable")
        parts = np.split(np.arange(len(ids)), np.cumsum(counts)[:-1])
        sorted_ids = np.concatenate([parts[place] for place in order])
        states = self._feed([lanes[place] for place in order], ids[sorted_ids], counts[order])
        ends = np.cumsum(counts[order])
        back = np.concatenate([np.arange(ends[place] - count, ends[place]) for place, count in zip(places, counts, strict=True)])
        return states.index_select(0, torch.from_numpy(back).to(states.device))

    def _feed(self, lanes: Sequence[Lane], ids: np.ndarray, counts: np.ndarray) -> Tensor:
        """The same of answers in the order of their slots."""
        device = next(self._model.parameters()).device
        lengths, starts = (np.array([getattr(lane, name) for lane in lanes]) for name in ("length", "start"))
        lane = np.repeat(np.arange(len(lanes)), counts)
        own = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts) + lengths[lane]
        positions = starts[lane] + own
        self._block.reserve(len(self._live), int(own.max()) + 1)
        slots = np.array([one.slot for one in lanes])
        feeding = Feeding(self._block, slots, lane, own, self._prefixes(lanes, lane, positions, device), device)
        filling = np.zeros(-len(ids) % ROW_MULTIPLE, dtype=np.int64)
        states = self._run(np.concatenate([ids, filling]).astype(np.int64), np.concatenate([positions, filling]), feeding)
        for one, count in zip(lanes, counts, strict=True):
            one.length += int(count)
        return states[: len(ids)]

    def _prefixes(self, lanes: Sequence[Lane], lane: np.ndarray, positions: np.ndarray, device: torch.device) -> list[Prefixes]:
        """Every stack that some answer branches from, with the tokens that read it."""
        rows: dict[Stack, np.ndarray] = {}
        for place, one in enumerate(lanes):
            for stack, row in one.path:
                rows.setdefault(stack, np.full(len(lanes), -1))[place] = row
        found = []
        for stack, row_of in rows.items():
            tokens = np.flatnonzero(row_of[lane] >= 0)
            grouped = group_tokens(row_of[lane][tokens], len(stack.lengths), device)
            among = None if len(tokens) == len(lane) else torch.from_numpy(tokens).to(device)
            found.append(Prefixes(stack, among, positions[tokens], grouped))
        return found

    def cut(self, lane: Lane, length: int) -> None:
        """Forgets the own tokens beyond `length`: rejected drafts, or a step back."""
        assert 0 <= length <= lane.length, "only tokens that were fed can be forgotten"
        lane.length = length

    def split(self, lane: Lane, count: int) -> list[Lane]:
        """The answer becomes the common beginning of `count` answers, without a token of their own; it leaves itself."""
        path = lane.path
        if lane.length:
            stack = Stack(np.array([lane.start]), np.array([lane.length]), self._block.copy(lane.slot, lane.length))
            path = (*path, (stack, 0))
        start = lane.start + lane.length
        self.drop([lane])
        return [self._add(Lane(path, start, len(self._live))) for _ in range(count)]

    def drop(self, lanes: Sequence[Lane]) -> None:
        """Answers leave; their places are taken by those behind."""
        for lane in lanes:
            last = self._live.pop()
            if last is not lane:
                self._block.move(last.slot, lane.slot, last.length)
                self._live[lane.slot] = last
                last.slot = lane.slot
            lane.slot = -1

    def _add(self, lane: Lane) -> Lane:
        self._live.append(lane)
        return lane

    def _run(self, ids: np.ndarray, positions: np.ndarray, lanes: Opening | Feeding) -> Tensor:
        """Last hidden states (N, H) of a packed row."""
        device = next(self._model.parameters()).device
        rows = (torch.from_numpy(array)[None].to(device) for array in (ids, positions))
        with torch.no_grad(), on_lanes(self._model):
            states: Tensor = self._model.base_model(**dict(zip(("input_ids", "position_ids"), rows, strict=True)), lanes=lanes, use_cache=False)[0]
        return states[0]


@contextmanager
def on_lanes(model: Any) -> Iterator[None]:
    """The model with this attention and in evaluation mode; around many passes it is switched once."""
    lm = causal_lm(model)
    was_training, before = lm.training, lm.config._attn_implementation
    if before == lane_attention.NAME and not was_training:
        yield
        return
    lane_attention.register()
    lm.eval()
    lm.set_attn_implementation(lane_attention.NAME)
    try:
        yield
    finally:
        lm.set_attn_implementation(before)
        lm.train(was_training)
