"""Which rows make a step, and how a step is split over micro-batches and ranks: pure arithmetic of seed and lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np


@dataclass(frozen=True)
class Step:
    """Rows of one optimiser step, with every rank's micro-batches as positions into `rows`."""

    index: int
    """0-based."""
    epoch: float
    """Epochs finished after this step."""
    rows: tuple[int, ...]
    micro: tuple[tuple[tuple[int, ...], ...], ...]
    """micro[rank][k]: positions in `rows` of the k-th micro-batch of a rank."""


@dataclass(frozen=True)
class Plan:
    """All steps of a run, made on demand; a step depends on nothing that happened before it."""

    tokens: np.ndarray
    """(N,) packed tokens per row."""
    batch_size: int
    epochs: float
    seed: int
    micro_tokens: int
    world: int = 1
    max_steps: int | None = None
    chance: np.ndarray | None = None
    """(N,) how often rows are drawn, with replacement; None: every row once an epoch."""
    second: np.ndarray | None = None
    """(N,) True for rows of a second stream, of which every step has its share, and which starts again whenever it ends; None: there is none."""
    second_share: float = 0.0
    """Share of a step's rows that come from it."""

    @cached_property
    def first_rows(self) -> np.ndarray:
        """Rows that make the epochs."""
        everyone = np.arange(len(self.tokens)) if self.second is None else np.flatnonzero(~self.second)
        return everyone if self.chance is None else everyone[self.chance[everyone] > 0]

    @property
    def second_rows(self) -> int:
        """Rows of a step that come from the second stream: its share, but at least one row of either."""
        return 0 if self.second is None else min(max(1, round(self.second_share * self.batch_size)), self.batch_size - 1)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that cover every row of the first stream once, or draw as many; the last may be smaller."""
        return -(-len(self.first_rows) // (self.batch_size - self.second_rows))

    def __len__(self) -> int:
        steps = max(1, round(self.epochs * self.steps_per_epoch)) if len(self.tokens) else 0
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def step(self, index: int) -> Step:
        """The step number `index`, 0-based."""
        rows = self.rows(index)
        micro = split(self.tokens[rows], self.micro_tokens, self.world)
        return Step(index, (index + 1) / self.steps_per_epoch, tuple(int(row) for row in rows), micro)

    def rows(self, index: int) -> np.ndarray:
        """Rows of a step, those of the second stream last."""
        epoch, within = divmod(index, self.steps_per_epoch)
        size = self.batch_size - self.second_rows
        first = self.first_rows[self._epoch(epoch)[within * size : (within + 1) * size]]
        if self.second is None:
            return np.asarray(first)
        stream = np.flatnonzero(self.second)
        places = range(index * self.second_rows, (index + 1) * self.second_rows)
        second = [stream[_order(self.seed, place // len(stream), len(stream), 2)[place % len(stream)]] for place in places]
        return np.concatenate([first, np.array(second, dtype=first.dtype)])

    def _epoch(self, epoch: int) -> np.ndarray:
        """The order of an epoch, as places among the first stream's rows."""
        if self.chance is None:
            return _order(self.seed, epoch, len(self.first_rows))
        return _draws(self.seed, epoch, self.chance[self.first_rows].tobytes())

    def visited(self) -> np.ndarray:
        """Sorted rows that any step reads."""
        if self.chance is None and self.second is None and len(self) >= self.steps_per_epoch:
            return np.arange(len(self.tokens))
        found = [self.rows(index) for index in range(len(self))]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)


@lru_cache(maxsize=1)
def _draws(seed: int, epoch: int, chance: bytes) -> np.ndarray:
    """As many places as there are rows, drawn with replacement in proportion to their chance."""
    weights = np.frombuffer(chance)
    drawn = np.random.default_rng([seed, epoch, 1]).choice(len(weights), size=len(weights), p=weights / weights.sum())
    drawn.flags.writeable = False
    return drawn


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int, *stream: int) -> np.ndarray:
    """The rows of an epoch of a stream in their order; kept for its further steps, for a million rows take 20 ms to shuffle."""
    order = np.random.default_rng([seed, epoch, *stream]).permutation(count)
    order.flags.writeable = False
    return order


def split(tokens: Sequence[int] | np.ndarray, budget: int, world: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Positions of each rank's micro-batches: longest rows first to the rank with the least work, then cut by token budget."""
    shares: list[list[int]] = [[] for _ in range(world)]
    load = [0] * world
    for position in np.argsort(-np.asarray(tokens), kind="stable"):
        rank = load.index(min(load))
        shares[rank].append(int(position))
        load[rank] += int(tokens[position])
    ranks = []
    for share in shares:
        parts: list[list[int]] = []
        total = 0
        for position in sorted(share):
            if not parts or total + tokens[position] > budget:
                parts.append([])
                total = 0
            parts[-1].append(position)
            total += int(tokens[position])
        ranks.append(tuple(tuple(part) for part in parts))
    return tuple(ranks)
