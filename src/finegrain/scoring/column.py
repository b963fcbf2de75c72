"""A column of the data as a reward: a number per answer, spans or numbers per token, under `<role>_NAME` or NAME."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from finegrain.errors import DataError
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.text_reward import Completion, TextReward, open_token_reader


def open_column(sources: Sequence[str], options: RewardOptions) -> TextReward:
    """The column of `column:NAME`."""
    (source,) = sources
    name = source.removeprefix("column:")
    return TextReward(source, partial(read_column, name), lambda: {"kind": "column", "source": source}, open_token_reader(options))


def read_column(name: str, asked: Sequence[Completion]) -> Sequence[Any]:
    """The cells of the rows; a null is an answer without a score."""
    return [_cell(name, one) for one in asked]


def _cell(name: str, asked: Completion) -> Any:
    for column in (f"{asked.role}_{name}", name):
        if column in asked.columns:
            return asked.columns[column]
    there = ", ".join(map(str, asked.columns)) or "nothing"
    raise DataError(f"row {asked.row} has no column {asked.role}_{name} or {name} for the reward column:{name}; it has {there}")
