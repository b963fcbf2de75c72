"""Rows of a dataset on the Hub."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from finegrain.data.records import Located
from finegrain.errors import DataError
from finegrain.types import Json


@dataclass
class HubTable:
    """Rows of a dataset on the Hub; their hash is updated as they are read."""

    name: str
    table: Iterable[Json]
    limit: int | None
    digest: Any = field(default_factory=hashlib.sha256)

    def stream(self) -> Iterator[Located]:
        """The rows from the first."""
        self.digest = hashlib.sha256()
        for number, taken in enumerate(islice(self.table, self.limit)):
            row = dict(taken)
            self.digest.update(json.dumps(row, sort_keys=True, default=str).encode())
            yield f"{self.name} row {number}", row

    def sha256(self) -> str:
        """SHA-256 of the rows that were read."""
        return str(self.digest.hexdigest())


def open_hub_table(name: str, config: str | None, split: str | None, limit: int | None) -> HubTable:
    """The rows of a split. Code that comes with a dataset is never run."""
    import datasets

    try:
        table = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the client raises a dozen unrelated types: connection, missing dataset, missing split, bad file
        raise DataError(f"cannot load {name} (config {config or 'default'}, split {split}) from the Hub: {error}") from error
    return HubTable(name, table, limit)
