"""The gate: takes rows, yields the examples that may train, and records everything it finds."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from finegrain.data.categories import Categories
from finegrain.data.columns import list_names
from finegrain.data.findings import Findings
from finegrain.data.formats import Format, recognise, rows_of_shape
from finegrain.data.gate.across import Across
from finegrain.data.gate.agreement import Agreement
from finegrain.data.gate.biases import BiasSample
from finegrain.data.gate.exact import NUMBERS, check_exact, check_last_turn
from finegrain.data.gate.judged import check_heuristics
from finegrain.data.gate.markup import find_own_markup
from finegrain.data.gate.settings import DONE, Decide
from finegrain.data.gate.texts import get_texts
from finegrain.data.left_out import LeftOut, Made, select_examples
from finegrain.data.reading import Reading
from finegrain.data.records import Located, Row, Shape
from finegrain.data.shapes import USUAL, Choices, made_of
from finegrain.data.source_rows import CellError
from finegrain.data.text_file import find_invalid_text
from finegrain.errors import DataError

FIRST_ROWS = 100
"""Rows that determine the format of a file and the markup its prompts contain by design."""


def find_common_format(first: Iterable[Located]) -> Format:
    """The format of most of the first rows, or one that decides; the error of the first row where none is recognised."""
    found: dict[str, list[Format]] = {}
    trouble: list[DataError] = []
    for where, raw in first:
        try:
            entry = recognise(raw)
        except DataError as error:
            trouble.append(DataError(f"{where}: {error}"))
        else:
            found.setdefault(f"{entry.name} {sorted(entry.columns)}", []).append(entry)
    if not found:
        raise trouble[0]
    deciding = [entries for entries in found.values() if entries[0].decides]
    return max(deciding or found.values(), key=len)[0]


def convert(entry: Format, shape: Shape, raw: Mapping[str, Any], choices: Choices = USUAL) -> list[Made]:
    """Calls `rows_of_shape`; a cell that cannot be read raises a DataError, whatever the converter raised."""
    try:
        return rows_of_shape(entry, shape, raw, choices)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise DataError(f"a cell of another form than {entry.name} has ({type(error).__name__}: {error})") from error


def _other_form(entry: Format, row: Mapping[str, Any]) -> str:
    """Describes a row of a known form that differs from the file's."""
    try:
        other = recognise(row.source if isinstance(row, Reading) else row)
    except DataError:
        return ""
    return "" if other is entry else f"; this row has the form {other.name}, the file's first rows {entry.name}"


class Form(NamedTuple):
    """The format of the rows of one source."""

    entry: Format
    first: Sequence[Located]
    """Its first rows, from which the format was found."""


def find_form(first: Sequence[Located]) -> Form:
    """Finds the form of a source from its first rows."""
    return Form(find_common_format(first), first)


class Keeper:
    """Decides row by row; it keeps only hashes of earlier rows."""

    def __init__(
        self,
        decide: Decide,
        forms: Sequence[Form],
        shape: Shape,
        findings: Findings,
        sample: BiasSample,
        *,
        part: Callable[[int], int] = lambda row: 0,
        categories: Categories | None = None,
    ) -> None:
        """`part` returns the source of a row that was read, as an index into `forms`; `categories`: text columns that are kept as numbers."""
        self._decide, self._shape, self._findings, self._sample = decide, shape, findings, sample
        self._forms, self._part, self._categories = forms, part, categories or Categories()
        self._choices = Choices(decide("neutral_step", None, ""), decide("pairs_from", None, ""))
        self._made_of = [made_of(entry, shape, self._choices) for entry, _ in forms]
        self._converted_to: Counter[str] = Counter()
        self._own_markup = find_own_markup(
            [get_texts(row).prompt for entry, first in forms for _, raw in first for row in self._readable(entry, raw)]
        )
        self._across = Across()
        self._labels: Counter[float] = Counter()
        self._agreement = Agreement()

    def _readable(self, entry: Format, raw: Mapping[str, Any]) -> list[Row]:
        try:
            return select_examples(convert(entry, self._shape, raw, self._choices))
        except DataError:
            return []

    def kept(self, rows: Iterable[Located]) -> Iterator[tuple[int, Row]]:
        """Source row number and example, for the examples that may train."""
        for number, (where, raw) in enumerate(rows):
            cells = Reading(raw)
            for row in self._converted(number, where, cells):
                if self._passes(number, where, cells, row):
                    if what := self._made_of[self._part(number)]:
                        self._converted_to[what] += 1
                    self._labels[row.columns.get("label", 0.0)] += 1
                    if self._shape is not Shape.STEPS:  # whose spans are steps
                        self._agreement.look(number, row)
                    yield number, row
            self._tell_columns(number, cells)
        for kind, number in self._across.finish():
            self._findings.add(kind, number, "dropped" if self._decide("duplicate", number, "") == "drop" else "kept")
        self._agreement.report(self._findings)
        for what, made in self._converted_to.items():
            self._findings.add_file("pairs_from", "made", f"{made} {self._shape.value} examples made of {what} (--gate.pairs-from)", made)
        if self._shape is Shape.UNPAIRED and len(self._labels) == 1 and self._labels.total() > 1:
            (label,) = self._labels
            words = f"all {self._labels.total()} answers have the label {label:g}; training needs both labels"
            self._findings.add_file("one_label", "kept", words)

    def _converted(self, number: int, where: str, cells: Reading) -> list[Row]:
        entry = self._forms[self._part(number)].entry
        try:
            made = convert(entry, self._shape, cells, self._choices)
        except DataError as error:
            kind = error.kind if isinstance(error, CellError) else "missing_column"
            words = str(error) if isinstance(error, CellError) else f"{error}{_other_form(entry, cells)}"
            if kind == "encoding" or self._decide(kind, number, f"{where}: {words}") == "drop":
                self._findings.drop(kind, number, words)
            else:
                self._findings.add(kind, number, "error", words)
            return []
        for one in made:
            if isinstance(one, LeftOut):
                self._findings.drop(one.value, number)
        for kind, words in cells.notes.items():
            self._findings.add(kind, number, "parsed", words)
        for words in cells.unfit.values():
            self._findings.add("not_a_number", number, "kept", words)
        rows = select_examples(made)
        cells.used = bool(rows)
        texts = self._categories.read(cells) if rows else {}
        return [replace(row, columns={**row.columns, **texts}) for row in rows] if texts else rows

    def _tell_columns(self, number: int, cells: Reading) -> None:
        """Reports the columns that hold a value and were not read, and those that the row has more than once."""
        if cells.source.repeated:
            self._findings.add("repeated_column", number, "the last one kept", list_names(cells.source.repeated))
        if cells.ignored:
            self._findings.add_unread(number, "annotations", dict.fromkeys(cells.ignored))
        if cells.used and (names := [name for name in cells.unread() if name not in NUMBERS]):
            self._findings.add_unread(number, "columns", names)

    def _passes(self, number: int, where: str, cells: Reading, row: Row) -> bool:
        texts = get_texts(row)
        dropping = ""
        if words := next(filter(None, map(find_invalid_text, (texts.prompt, *texts.answers.values()))), ""):
            self._findings.drop("encoding", number, words)
            return False
        for kind, words in chain(check_exact(cells.source, row, texts), check_heuristics(texts, self._own_markup), check_last_turn(cells)):
            dropping = self._name(kind, number, where, words, dropping)
        for kind, other in () if dropping else self._across.look(number, row):
            if other == number:
                dropping = self._name(kind, number, where, "", dropping)
            else:
                self._findings.add(kind, other, "kept")
        if not dropping:
            self._sample.offer(row, texts)
        return not dropping

    def _name(self, kind: str, number: int, where: str, words: str, dropping: str) -> str:
        """Adds a finding; returns the kind that drops the example, if any."""
        action = self._decide(kind, number, f"{where}: {words}" if words else where)
        if action == "drop" and not dropping:
            self._findings.drop(kind, number, words)
            return kind
        self._findings.add(kind, number, DONE[action], words)
        return dropping
