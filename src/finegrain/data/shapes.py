"""What a format serves, and the shapes derived from it.

Pairs give unpaired rows (chosen 1, rejected 0) and demonstrations (the chosen side), but for ties, where neither is better;
steps give unpaired rows (1 where all steps are right); unpaired rows give demonstrations (label 1). Ratings give nothing else.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from finegrain.data.convert.build import pair_with
from finegrain.data.convert.steps import Neutral, NeutralBad, all_right
from finegrain.data.records import Row, Shape
from finegrain.errors import DataError
from finegrain.types import Json

Convert = Callable[[Json], list[Row]]
USUAL_NEUTRAL = NeutralBad()


def _any_row(row: Json) -> bool:
    return True


class Format(NamedTuple):
    """One recognised format."""

    name: str
    columns: frozenset[str]
    """Columns every row must have."""
    pairs: Convert | None = None
    """Rows with roles chosen and rejected."""
    answers: Convert | None = None
    """Rows with role answer and the column `label`."""
    demonstrations: Convert | None = None
    """Rows with role answer."""
    ratings: Convert | None = None
    """Rows with role answer and columns `rating/<attribute>`."""
    steps: Convert | None = None
    """Rows with role answer and a span for each labelled step."""
    matches: Callable[[Json], bool] = _any_row
    """What else the first row must satisfy."""


def rows_of_shape(entry: Format, shape: Shape, row: Json, neutral: Neutral = USUAL_NEUTRAL) -> list[Row]:
    """The examples of one row in the wanted shape, without repeats; `neutral` says what a neutral step is where steps become a label."""
    if missing := sorted(entry.columns - row.keys()):
        raise DataError(f"missing columns {', '.join(missing)}; found: {', '.join(row)}; {entry.name} needs {', '.join(sorted(entry.columns))}")
    return _unique(_CONVERTERS[shape](entry, row, neutral))


def _pairs(entry: Format, row: Json, neutral: Neutral) -> list[Row]:
    if entry.pairs is None:
        raise DataError(f"{entry.name} has no pairs of a chosen and a rejected answer")
    return entry.pairs(row)


def _unpaired(entry: Format, row: Json, neutral: Neutral) -> list[Row]:
    if entry.answers is not None:
        return entry.answers(row)
    if entry.pairs is not None:
        return [_one_side(pair, role, label) for pair in _decided(entry.pairs(row)) for role, label in (("chosen", 1.0), ("rejected", 0.0))]
    if entry.steps is not None:
        judged = [(one, all_right(one, neutral)) for one in entry.steps(row)]
        return [pair_with(one, one.answers, {**one.columns, "label": label}) for one, label in judged if label is not None]
    raise DataError(f"{entry.name} has neither labels nor pairs")


def _demonstrations(entry: Format, row: Json, neutral: Neutral) -> list[Row]:
    if entry.demonstrations is not None:
        return entry.demonstrations(row)
    if entry.pairs is not None:
        return [_one_side(pair, "chosen", None) for pair in _decided(entry.pairs(row))]
    if entry.ratings is not None or entry.steps is not None:
        raise DataError(f"{entry.name} has judged answers, not demonstrations: pick the answers to imitate and write them as prompt and completion")
    return [answer for answer in _unpaired(entry, row, neutral) if answer.columns["label"] == 1.0]


def _ratings(entry: Format, row: Json, neutral: Neutral) -> list[Row]:
    if entry.ratings is None:
        raise DataError(f"{entry.name} has no ratings")
    return entry.ratings(row)


def _steps(entry: Format, row: Json, neutral: Neutral) -> list[Row]:
    if entry.steps is None:
        raise DataError(f"{entry.name} has no labelled steps")
    return entry.steps(row)


_CONVERTERS: Mapping[Shape, Callable[[Format, Json, Neutral], list[Row]]] = {
    Shape.PREFERENCE: _pairs,
    Shape.UNPAIRED: _unpaired,
    Shape.DEMONSTRATION: _demonstrations,
    Shape.RATED: _ratings,
    Shape.STEPS: _steps,
}


def _decided(pairs: list[Row]) -> list[Row]:
    return [pair for pair in pairs if pair.columns.get("tie") != 1.0]


def _one_side(pair: Row, role: str, label: float | None) -> Row:
    columns = pair.columns if label is None else {**pair.columns, "label": label}
    return pair_with(pair, {"answer": pair.answers[role]}, columns)


TELLING = ("label", "helpful", "harmless")
"""Columns that make two examples of the same texts different."""


def _unique(rows: list[Row]) -> list[Row]:
    seen: set[object] = set()
    kept = []
    for row in rows:
        texts = ((role, answer.content) for role, answer in row.answers.items())
        key = (row.prompt, *texts, *(row.columns.get(name) for name in TELLING))
        if key not in seen:
            kept.append(row)
            seen.add(key)
    return kept
