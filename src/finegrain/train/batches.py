"""Which rows make a step, and how a step is split over micro-batches and ranks: pure arithmetic of seed and lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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

    @property
    def steps_per_epoch(self) -> int:
        """Steps that cover every row once; the last may be smaller."""
        return -(-len(self.tokens) // self.batch_size)

    def __len__(self) -> int:
        steps = max(1, round(self.epochs * self.steps_per_epoch)) if len(self.tokens) else 0
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def step(self, index: int) -> Step:
        """The step number `index`, 0-based."""
        epoch, within = divmod(index, self.steps_per_epoch)
        rows = _order(self.seed, epoch, len(self.tokens))[within * self.batch_size : (within + 1) * self.batch_size]
        micro = split(self.tokens[rows], self.micro_tokens, self.world)
        return Step(index, epoch + (within + 1) / self.steps_per_epoch, tuple(int(row) for row in rows), micro)

    def visited(self) -> np.ndarray:
        """Sorted rows that any step reads."""
        if len(self) >= self.steps_per_epoch:
            return np.arange(len(self.tokens))
        return np.sort(_order(self.seed, 0, len(self.tokens))[: len(self) * self.batch_size])


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The rows of an epoch in their order; kept for its further steps, for a million rows take 20 ms to shuffle."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
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
