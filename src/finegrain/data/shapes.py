"""What a format contains, and the shapes derived from it.

Pairs give unpaired rows (chosen 1, rejected 0) and demonstrations (the chosen side), except for ties, where neither is better;
steps give unpaired rows (1 where all steps are right); unpaired rows give demonstrations (label 1). Ratings give no other shape.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from finegrain.data.columns import list_names
from finegrain.data.conversations import read_tools
from finegrain.data.convert.build import replace_answers
from finegrain.data.convert.steps import add_label, settle_neutral
from finegrain.data.left_out import LeftOut, Made, convert_examples
from finegrain.data.reading import Reading
from finegrain.data.records import Row, Shape
from finegrain.errors import DataError

OWN_SHAPES = (Shape.PREFERENCE, Shape.RATED, Shape.STEPS, Shape.UNPAIRED, Shape.DEMONSTRATION)
"""In the order in which a format's own shape is looked for: the first that it serves."""
TEXT_SHAPES = (Shape.PREFERENCE, Shape.UNPAIRED, Shape.DEMONSTRATION)
"""Shapes of answers as such, without ratings and labelled steps."""

Convert = Callable[[Reading], Sequence[Made]]
"""At least one example or reason."""


def _any_row(row: Reading) -> bool:
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
    matches: Callable[[Reading], bool] = _any_row
    """A further condition on the first row."""


def serves(entry: Format, shape: Shape) -> bool:
    """Whether rows of the format make examples of the shape."""
    judged = entry.ratings is not None or entry.steps is not None
    served = {
        Shape.PREFERENCE: entry.pairs is not None,
        Shape.UNPAIRED: entry.answers is not None or entry.pairs is not None or entry.steps is not None,
        Shape.DEMONSTRATION: entry.demonstrations is not None or entry.pairs is not None or (entry.answers is not None and not judged),
        Shape.RATED: entry.ratings is not None,
        Shape.STEPS: entry.steps is not None,
    }
    return served[shape]


def find_own_shape(entry: Format) -> Shape:
    """The shape a format has without conversion: pairs, ratings, labelled steps, labelled answers, else demonstrations."""
    return next(shape for shape in OWN_SHAPES if serves(entry, shape))


def rows_of_shape(entry: Format, shape: Shape, row: Mapping[str, Any], neutral: str = "wrong") -> list[Made]:
    """The examples of one row in the requested shape, without repeats, and the reasons why there are no others.

    `neutral`: how a step labelled neither right nor wrong counts (wrong, right, or ignore).
    """
    cells = row if isinstance(row, Reading) else Reading(row)
    cells.check()
    if missing := sorted(entry.columns - row.keys()):
        raise DataError(f"missing columns {', '.join(missing)}; found: {list_names(row)}; {entry.name} needs {', '.join(sorted(entry.columns))}")
    made = _unique(_CONVERTERS[shape](entry, cells, neutral))
    if any(_talks(one) for one in made) and (tools := read_tools(cells.get("tools"))):
        made = [replace(one, tools=tools) if isinstance(one, Row) and _talks(one) else one for one in made]
    assert made, f"the converter of {entry.name} to {shape.value} rows made no example and gave no reason"
    return made


def _talks(one: Made) -> bool:
    return isinstance(one, Row) and not isinstance(one.prompt, str)


def _pairs(entry: Format, row: Reading, neutral: str) -> Sequence[Made]:
    if entry.pairs is None:
        raise DataError(f"{entry.name} has no pairs of a chosen and a rejected answer")
    return entry.pairs(row)


def _unpaired(entry: Format, row: Reading, neutral: str) -> Sequence[Made]:
    if entry.answers is not None:
        return entry.answers(row)
    if entry.pairs is not None:
        return convert_examples(entry.pairs(row), _both_sides)
    if entry.steps is not None:
        return convert_examples(_steps(entry, row, neutral), add_label)
    raise DataError(f"{entry.name} has neither labels nor pairs")


def _demonstrations(entry: Format, row: Reading, neutral: str) -> Sequence[Made]:
    if entry.demonstrations is not None:
        return entry.demonstrations(row)
    if entry.pairs is not None:
        return convert_examples(entry.pairs(row), _chosen_side)
    if entry.ratings is not None or entry.steps is not None:
        raise DataError(f"{entry.name} has labelled answers, not demonstrations; pick the answers to imitate and write them as prompt and completion")
    return convert_examples(_unpaired(entry, row, neutral), _imitated)


def _ratings(entry: Format, row: Reading, neutral: str) -> Sequence[Made]:
    if entry.ratings is None:
        raise DataError(f"{entry.name} has no ratings")
    return entry.ratings(row)


def _steps(entry: Format, row: Reading, neutral: str) -> Sequence[Made]:
    if entry.steps is None:
        raise DataError(f"{entry.name} has no labelled steps")
    return convert_examples(entry.steps(row), lambda one: [settle_neutral(one, neutral)])


_CONVERTERS: Mapping[Shape, Callable[[Format, Reading, str], Sequence[Made]]] = {
    Shape.PREFERENCE: _pairs,
    Shape.UNPAIRED: _unpaired,
    Shape.DEMONSTRATION: _demonstrations,
    Shape.RATED: _ratings,
    Shape.STEPS: _steps,
}


def _both_sides(pair: Row) -> list[Made]:
    return [LeftOut.NO_PREFERENCE] if _tied(pair) else [_one_side(pair, "chosen", 1.0), _one_side(pair, "rejected", 0.0)]


def _chosen_side(pair: Row) -> list[Made]:
    return [LeftOut.NO_PREFERENCE] if _tied(pair) else [_one_side(pair, "chosen", None)]


def _imitated(answer: Row) -> list[Made]:
    """A label that is not a number is kept, for the gate to report."""
    return [LeftOut.LABELLED_BAD] if answer.columns["label"] == 0.0 else [answer]


def _tied(pair: Row) -> bool:
    return pair.columns.get("tie") == 1.0


def _one_side(pair: Row, role: str, label: float | None) -> Row:
    columns = pair.columns if label is None else {**pair.columns, "label": label}
    return replace_answers(pair, {"answer": pair.answers[role]}, columns)


TELLING = ("label", "helpful", "harmless")
"""Columns that make two examples of the same texts distinct."""


def _unique(made: Sequence[Made]) -> list[Made]:
    seen: set[object] = set()
    kept: list[Made] = []
    for one in made:
        if isinstance(one, Row):
            texts = ((role, answer.content) for role, answer in one.answers.items())
            key = (one.prompt, *texts, *(one.columns.get(name) for name in TELLING))
            if key in seen:
                continue
            seen.add(key)
        kept.append(one)
    return kept
