"""What a format contains, and the shapes derived from it.

Ranked answers and corrections give pairs, where a format has none of its own or `pairs_from` asks for it. Pairs give unpaired rows
(chosen 1, rejected 0) and demonstrations (the chosen side), except for ties, where neither is better; steps give unpaired rows (1 where
all steps are right); unpaired rows give demonstrations (label 1). Ratings give no other shape.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from finegrain.data.columns import list_names
from finegrain.data.conversations import read_tools
from finegrain.data.convert.build import replace_answers
from finegrain.data.convert.own import add_generated
from finegrain.data.convert.ranked import pair_of_correction, pairs_of_ranked
from finegrain.data.convert.steps import add_label, settle_neutral
from finegrain.data.left_out import LeftOut, Made, convert_examples
from finegrain.data.reading import Reading
from finegrain.data.records import Row, Shape
from finegrain.errors import DataError

OWN_SHAPES = (Shape.PREFERENCE, Shape.RANKED, Shape.CORRECTION, Shape.RATED, Shape.STEPS, Shape.UNPAIRED, Shape.DEMONSTRATION)
"""In the order in which a format's own shape is looked for: the first that it has a function for."""
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
    ranked: Convert | None = None
    """Rows with roles answer-1 ... answer-K, the best first, and columns `rank/<role>`."""
    corrections: Convert | None = None
    """Rows with roles corrected and original."""
    references: Convert | None = None
    """Pairs of the set's reference answer and answers of models."""
    matches: Callable[[Reading], bool] = _any_row
    """A further condition on a row."""
    decides: bool = False
    """One such row among a file's first ones is enough: its other rows may look like another format."""


def serves(entry: Format, shape: Shape) -> bool:
    """Whether rows of the format make examples of the shape."""
    judged = entry.ratings is not None or entry.steps is not None
    paired = bool(_pair_sources(entry))
    served = {
        Shape.PREFERENCE: paired,
        Shape.UNPAIRED: entry.answers is not None or paired or entry.steps is not None,
        Shape.DEMONSTRATION: entry.demonstrations is not None or paired or (entry.answers is not None and not judged),
        Shape.RATED: entry.ratings is not None,
        Shape.STEPS: entry.steps is not None,
        Shape.RANKED: entry.ranked is not None,
        Shape.CORRECTION: entry.corrections is not None,
        Shape.EXPLORED: paired,
    }
    return served[shape]


def find_own_shape(entry: Format) -> Shape:
    """The shape a format has without conversion."""
    own = (entry.pairs, entry.ranked, entry.corrections, entry.ratings, entry.steps, entry.answers, entry.demonstrations)
    return next(shape for shape, function in zip(OWN_SHAPES, own, strict=True) if function is not None)


def _pair_sources(entry: Format) -> dict[str, Convert]:
    """What pairs can be made of, by the value of `pairs_from`, in the order in which `auto` takes them."""
    sources: dict[str, Convert] = {}
    if entry.pairs is not None:
        sources["pairs"] = entry.pairs
    if (ranked := entry.ranked) is not None:
        sources["ranked"] = lambda row: convert_examples(ranked(row), pairs_of_ranked)
    if (corrections := entry.corrections) is not None:
        sources["corrections"] = lambda row: convert_examples(corrections(row), pair_of_correction)
    if entry.references is not None:
        sources["references"] = entry.references
    return sources


class Choices(NamedTuple):
    """What a converter is told beside the row."""

    neutral: str = "wrong"
    """How a step labelled neither right nor wrong counts: wrong, right, or ignore."""
    pairs_from: str = "auto"
    """What pairs are made of: pairs, ranked, corrections, references, or auto, the first of these that the format has."""


USUAL = Choices()


def made_of(entry: Format, shape: Shape, choices: Choices) -> str:
    """What pairs of this format are made of where that is not pairs: ranked, corrections or references; empty where nothing is converted."""
    given = {Shape.UNPAIRED: entry.answers, Shape.DEMONSTRATION: entry.demonstrations}
    if shape not in (Shape.PREFERENCE, *given) or given.get(shape) is not None:
        return ""
    source = next(iter(_pair_sources(entry)), "") if choices.pairs_from == "auto" else choices.pairs_from
    return "" if source == "pairs" else source


def rows_of_shape(entry: Format, shape: Shape, row: Mapping[str, Any], choices: Choices = USUAL) -> list[Made]:
    """The examples of one row in the requested shape, without repeats, and the reasons why there are no others."""
    cells = row if isinstance(row, Reading) else Reading(row)
    cells.check()
    if missing := sorted(entry.columns - row.keys()):
        raise DataError(f"missing columns {', '.join(missing)}; found: {list_names(row)}; {entry.name} needs {', '.join(sorted(entry.columns))}")
    made = _unique(_CONVERTERS[shape](entry, cells, choices))
    if any(_talks(one) for one in made) and (tools := read_tools(cells.get("tools"))):
        made = [replace(one, tools=tools) if isinstance(one, Row) and _talks(one) else one for one in made]
    assert made, f"the converter of {entry.name} to {shape.value} rows made no example and gave no reason"
    return made


def _talks(one: Made) -> bool:
    return isinstance(one, Row) and not isinstance(one.prompt, str)


def _pairs(entry: Format, row: Reading, choices: Choices) -> Sequence[Made]:
    sources = _pair_sources(entry)
    if not sources:
        raise DataError(f"{entry.name} has no pairs of a chosen and a rejected answer")
    if choices.pairs_from == "auto":
        return next(iter(sources.values()))(row)
    if choices.pairs_from not in sources:
        raise DataError(f"{entry.name} has no {choices.pairs_from} that pairs could be made of; it has {', '.join(sources)}")
    return sources[choices.pairs_from](row)


def _unpaired(entry: Format, row: Reading, choices: Choices) -> Sequence[Made]:
    if entry.answers is not None:
        return entry.answers(row)
    if _pair_sources(entry):
        return convert_examples(_pairs(entry, row, choices), _both_sides)
    if entry.steps is not None:
        return convert_examples(_steps(entry, row, choices), add_label)
    raise DataError(f"{entry.name} has neither labels nor pairs")


def _demonstrations(entry: Format, row: Reading, choices: Choices) -> Sequence[Made]:
    if entry.demonstrations is not None:
        return entry.demonstrations(row)
    if _pair_sources(entry):
        return convert_examples(_pairs(entry, row, choices), _chosen_side)
    if entry.ratings is not None or entry.steps is not None:
        raise DataError(f"{entry.name} has labelled answers, not demonstrations; pick the answers to imitate and write them as prompt and completion")
    return convert_examples(_unpaired(entry, row, choices), _imitated)


def _ratings(entry: Format, row: Reading, choices: Choices) -> Sequence[Made]:
    if entry.ratings is None:
        raise DataError(f"{entry.name} has no ratings")
    return entry.ratings(row)


def _steps(entry: Format, row: Reading, choices: Choices) -> Sequence[Made]:
    if entry.steps is None:
        raise DataError(f"{entry.name} has no labelled steps")
    return convert_examples(entry.steps(row), lambda one: [settle_neutral(one, choices.neutral)])


def _ranked(entry: Format, row: Reading, choices: Choices) -> Sequence[Made]:
    if entry.ranked is None:
        raise DataError(f"{entry.name} has no ranked answers")
    return entry.ranked(row)


def _corrections(entry: Format, row: Reading, choices: Choices) -> Sequence[Made]:
    if entry.corrections is None:
        raise DataError(f"{entry.name} has no corrections")
    return entry.corrections(row)


def _explored(entry: Format, row: Reading, choices: Choices) -> Sequence[Made]:
    return convert_examples(_pairs(entry, row, choices), lambda pair: [add_generated(pair, row)])


_CONVERTERS: Mapping[Shape, Callable[[Format, Reading, Choices], Sequence[Made]]] = {
    Shape.PREFERENCE: _pairs,
    Shape.UNPAIRED: _unpaired,
    Shape.DEMONSTRATION: _demonstrations,
    Shape.RATED: _ratings,
    Shape.STEPS: _steps,
    Shape.RANKED: _ranked,
    Shape.CORRECTION: _corrections,
    Shape.EXPLORED: _explored,
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
