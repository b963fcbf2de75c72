"""Rows of several sources as one sequence.

Without weights they are concatenated. With weights they alternate, each time from the source that lags most behind its share,
so that after any number of rows every share is met to within a row or two; nothing is random, so the same sources give the same rows.
The mixture ends when one source is exhausted, like datasets' `interleave_datasets` (`first_exhausted`), which samples randomly.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

from finegrain.data.places import Places
from finegrain.data.read import Source, read
from finegrain.data.records import Located
from finegrain.data.sources import parse_sources


class Mixture:
    """Several sources to be read, and the source of every row."""

    def __init__(self, name: str, parts: Sequence[Source], weights: Sequence[float], limit: int | None) -> None:
        self.name, self.parts, self._limit = name, tuple(parts), limit
        self.weights = tuple(weights)
        """As given; empty where the sources are concatenated."""
        self.places = Places([part.name for part in parts])
        self.left = [0] * len(parts)
        """Rows by source that the latest reading did not use."""

    @property
    def files(self) -> list[str]:
        """File names of all sources."""
        return [file for part in self.parts for file in part.files]

    @property
    def count(self) -> int:
        """Number of rows that the latest reading has returned so far."""
        return sum(self.places.counts())

    @property
    def rows(self) -> Iterator[Located]:
        """The rows one by one, from the first on every access."""
        self.places.clear()
        self.left = [0] * len(self.parts)
        for part, row in islice(self._mixed() if self.weights else self._joined(), self._limit):
            self.places.add(part)
            yield row

    def sha256(self) -> str:
        """SHA-256 of the content of all sources, and of their weights."""
        weights = self.weights or [None] * len(self.parts)
        joined = "\n".join(f"{part.sha256()} {weight}" for part, weight in zip(self.parts, weights, strict=True))
        return hashlib.sha256(joined.encode()).hexdigest()

    def left_in_words(self) -> str:
        """Which sources were not read to their end; empty where all were."""
        counts = zip(self.parts, self.places.counts(), self.left, strict=True)
        return ", ".join(f"{part.name}: {used} of {used + left} rows used" for part, used, left in counts if left)

    def _joined(self) -> Iterator[tuple[int, Located]]:
        for number, part in enumerate(self.parts):
            for row in part.rows:
                yield number, row

    def _mixed(self) -> Iterator[tuple[int, Located]]:
        streams = [part.rows for part in self.parts]
        highest = max(self.weights)
        scaled = [weight / highest for weight in self.weights]  # a sum of weights above 1e308 would be infinite
        shares = [weight / sum(scaled) for weight in scaled]
        taken = [0] * len(streams)
        for given in range(1, 2**63):
            part = max(range(len(streams)), key=lambda one: shares[one] * given - taken[one])
            row = next(streams[part], None)
            if row is None:
                break
            taken[part] += 1
            yield part, row
        self.left = [sum(1 for _ in stream) for stream in streams]


def read_sources(text: str, limit: int | None = None) -> Source | Mixture:
    """The rows of all sources that a setting names, at most `limit` of them together."""
    named = parse_sources(text)
    if len(named) == 1:
        return read(text, limit)
    return Mixture(text, [read(one.source, limit) for one in named], [one.weight for one in named if one.weight is not None], limit)
