"""From a source to tokenised examples: read, recognise, convert, pass the gate, tokenise, report."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from jaxtyping import Bool

from finegrain.data.categories import Categories
from finegrain.data.findings import MOST_ROWS, Findings, format_source
from finegrain.data.gate.biases import BiasSample, measure_biases
from finegrain.data.gate.keeper import FIRST_ROWS, Form, Keeper, find_form
from finegrain.data.gate.settings import TOKEN_KINDS, Decide, Gate, Listing, Stopping
from finegrain.data.mixture import Mixture, read_sources
from finegrain.data.read import Source
from finegrain.data.records import FastTokenizer, Located, Row, Shape
from finegrain.data.shapes import find_own_shape, serves
from finegrain.data.store import ExampleStore, collect
from finegrain.data.tokenise import tokenise
from finegrain.data.truncate import KeepEnd, KeepStart, Tokenise, apply_limit
from finegrain.errors import DataError
from finegrain.types import Json

__all__ = ["Gate", "KeepEnd", "KeepStart", "LoadedData", "Shape", "Tokenise", "load_examples"]


@dataclass(frozen=True)
class LoadedData:
    """Examples, and what happened to the rows they came from."""

    examples: ExampleStore
    report: Json
    """JSON: source, files, sha256, format, rows, examples, kept, dropped, findings and counts; `sources` where there are several."""
    gate: Json
    """The content of gate.json."""
    shape: Shape
    """The shape of the examples: the first requested one that the rows can have."""
    sources: tuple[str, ...]
    """Names of the sources, in the order that they were given in."""
    from_last: Bool[np.ndarray, " N"]
    """True for examples of the last source."""


def load_examples(
    source: str,
    tokenizer: FastTokenizer,
    *,
    shape: Shape | Sequence[Shape],
    settings: Tokenise,
    limit: int | None = None,
    gate: Gate = Gate(),
    categories: Categories | None = None,
    assumed: Mapping[str, float] = MappingProxyType({}),
) -> LoadedData:
    """The examples of a file, folder or Hub name, or of several; `limit` counts rows of all sources.

    `categories`: text columns that examples keep as numbers. `assumed`: numbers of examples that lack them, by column.
    `shape`: the one that a recipe needs, or several, of which the rows' first one is taken (`OWN_SHAPES`: what the rows serve of themselves).
    """
    rows, made = read_sources(source, limit), Counter[int]()
    forms, stream = _forms(rows)
    shape = shape if isinstance(shape, Shape) else _first_served(forms, shape)
    findings = _findings_of(rows)
    sample, decide = BiasSample(gate.bias_rows), Stopping(gate)
    kept = _assume(_keeper(rows, forms, decide, shape, findings, sample, categories).kept(stream), assumed, findings)
    examples = collect(_counted(rows, made, ((one.row, one) for one in tokenise(kept, tokenizer, settings, findings, decide))))
    _tell_left(rows, findings)
    if not examples:
        raise DataError(
            f"{source}: none of {rows.count} rows ({_name(forms)}) gave a {shape.value} example; dropped: {findings.in_words() or 'none'}"
        )
    facts = {**_facts(source, rows, forms, shape), **_by_source(rows, forms, made, findings)}
    return LoadedData(
        examples,
        {**facts, "max_length": apply_limit(settings, tokenizer).max_length, **_report(rows, forms, findings, examples, facts.get("sources", []))},
        make_gate_report(facts, findings, sample),
        shape,
        tuple(part.name for part in rows.parts) if isinstance(rows, Mixture) else (source,),
        np.array([rows.places.part(int(number)) == len(rows.parts) - 1 for number in examples.row_numbers])
        if isinstance(rows, Mixture)
        else np.ones(len(examples), dtype=bool),
    )


def check_rows(
    source: str, tokenizer: FastTokenizer | None, *, settings: Tokenise, limit: int | None = None, gate: Gate = Gate(), shape: Shape | None = None
) -> Json:
    """The content of gate.json for the rows in a shape, by default their own; findings that would stop a run are listed, nothing is stored."""
    rows, made = read_sources(source, limit), Counter[int]()
    forms, stream = _forms(rows)
    shape = shape or _one_shape(rows, forms)
    findings, sample, decide = _findings_of(rows), BiasSample(gate.bias_rows), Listing(gate)
    kept = _keeper(rows, forms, decide, shape, findings, sample).kept(stream)
    numbered = kept if tokenizer is None else ((one.row, one) for one in tokenise(kept, tokenizer, settings, findings, decide))
    left = sum(1 for _ in _counted(rows, made, numbered))
    _tell_left(rows, findings)
    facts = {**_facts(source, rows, forms, shape), **_by_source(rows, forms, made, findings), "examples_left": left}
    return make_gate_report(facts, findings, sample, not_checked=TOKEN_KINDS if tokenizer is None else ())


@dataclass(frozen=True)
class LoadedText:
    """Examples as text, and what happened to the rows they came from."""

    rows: list[tuple[int, Row]]
    """Row number in the source, and the example."""
    gate: Json
    """The content of gate.json."""


def load_text(source: str, *, limit: int | None = None, gate: Gate = Gate()) -> LoadedText:
    """The examples that pass the gate, as text, in the first shape that the rows have; of ranked answers and corrections their pairs."""
    rows = read_sources(source, limit)
    forms, stream = _forms(rows)
    shape = _one_shape(rows, forms)
    if shape in (Shape.RANKED, Shape.CORRECTION):
        shape = Shape.PREFERENCE
    findings, sample = _findings_of(rows), BiasSample(gate.bias_rows)
    kept = list(_keeper(rows, forms, Stopping(gate), shape, findings, sample).kept(stream))
    _tell_left(rows, findings)
    if not kept:
        raise DataError(f"{source}: none of {rows.count} rows ({_name(forms)}) gave an answer; dropped: {findings.in_words() or 'none'}")
    made = Counter(rows.places.part(number) for number, _ in kept) if isinstance(rows, Mixture) else Counter[int]()
    facts = {**_facts(source, rows, forms, shape), **_by_source(rows, forms, made, findings), "examples_left": len(kept)}
    return LoadedText(kept, make_gate_report(facts, findings, sample, not_checked=TOKEN_KINDS))


Rows = Source | Mixture
Item = TypeVar("Item")


def _forms(rows: Rows) -> tuple[list[Form], Iterator[Located]]:
    """The form of every source, and all rows; the first rows of several sources are read twice."""
    if isinstance(rows, Mixture):
        return [find_form(list(islice(part.rows, FIRST_ROWS))) for part in rows.parts], rows.rows
    stream = rows.rows
    first = list(islice(stream, FIRST_ROWS))
    return [find_form(first)], chain(first, stream)


def _name(forms: list[Form]) -> str:
    return ", ".join(dict.fromkeys(form.entry.name for form in forms))


def _first_served(forms: list[Form], shapes: Sequence[Shape]) -> Shape:
    """The first of the shapes that all sources have; without one, the first, whose rows then report why they lack it."""
    return next((shape for shape in shapes if all(serves(form.entry, shape) for form in forms)), shapes[0])


def _one_shape(rows: Rows, forms: list[Form]) -> Shape:
    """The shape that all sources have without conversion; a DataError where they differ."""
    shapes = [find_own_shape(form.entry) for form in forms]
    if isinstance(rows, Mixture) and len(set(shapes)) > 1:
        told = ", ".join(f"{part.name} {shape.value}" for part, shape in zip(rows.parts, shapes, strict=True))
        raise DataError(f"the sources have rows of different shapes ({told}); check them one at a time")
    return shapes[0]


def _findings_of(rows: Rows) -> Findings:
    return Findings(rows.places if isinstance(rows, Mixture) else None)


def _keeper(
    rows: Rows, forms: list[Form], decide: Decide, shape: Shape, findings: Findings, sample: BiasSample, categories: Categories | None = None
) -> Keeper:
    if isinstance(rows, Mixture):
        return Keeper(decide, forms, shape, findings, sample, part=rows.places.part, categories=categories)
    return Keeper(decide, forms, shape, findings, sample, categories=categories)


def _assume(kept: Iterable[tuple[int, Row]], assumed: Mapping[str, float], findings: Findings) -> Iterator[tuple[int, Row]]:
    """The examples with the numbers that they lack; each such row is a finding."""
    for number, row in kept:
        added = {name: value for name, value in assumed.items() if name not in row.columns}
        if added:
            findings.add("assumed", number, "kept", ", ".join(f"{name} is {value:g}" for name, value in added.items()))
        yield number, replace(row, columns={**row.columns, **added}) if added else row


def _counted(rows: Rows, made: Counter[int], numbered: Iterable[tuple[int, Item]]) -> Iterator[Item]:
    """The examples, counted by source where there are several."""
    for number, item in numbered:
        if isinstance(rows, Mixture):
            made[rows.places.part(number)] += 1
        yield item


def _tell_left(rows: Rows, findings: Findings) -> None:
    if isinstance(rows, Mixture) and any(rows.left):
        findings.add_file("mixture", "left over", rows.left_in_words(), sum(rows.left))


def _by_source(rows: Rows, forms: list[Form], made: Counter[int], findings: Findings) -> Json:
    """The report for each of several sources."""
    if not isinstance(rows, Mixture):
        return {}
    sources = []
    for place, (part, form, count, left) in enumerate(zip(rows.parts, forms, rows.places.counts(), rows.left, strict=True)):
        own = {"source": part.name, "files": part.files, "sha256": part.sha256(), "format": form.entry.name}
        mixed = {"weight": rows.weights[place], "rows_left_over": left} if rows.weights else {}
        sources.append({**own, **mixed, "rows": count, "kept": made[place], **findings.of_source(place)})
    return {"sources": sources}


def _facts(source: str, rows: Rows, forms: list[Form], shape: Shape) -> Json:
    """The facts that identify rows that were read to their end."""
    return {"source": source, "sha256": rows.sha256(), "format": _name(forms), "shape": shape.value, "rows": rows.count}


def _report(rows: Rows, forms: list[Form], findings: Findings, examples: ExampleStore, sources: list[Json]) -> Json:
    """The counts derived from rows, findings and examples."""
    roles = examples.roles
    return {
        "files": rows.files,
        "columns": examples.columns,
        "partial_columns": list(examples.files.partial),
        "kept": len(examples),
        "dropped": findings.dropped(),
        "findings": findings.as_json(),
        "messages": [f"{_name(forms)}: {rows.count} rows, {len(examples)} examples kept", *map(format_source, sources), *findings.messages()],
        "answers": len(examples) * len(roles),
        **{kind: findings.count(kind) for kind in ("prompt_truncated", "answer_truncated", "boundary_differs", "decode_differs")},
        "annotated": {role: examples.annotated(role) for role in roles},
        "token_rewards": {role: examples.rewarded(role) for role in roles},
        "prompt_tokens": int(examples.prompt_lengths.sum()),
        "answer_tokens": sum(int(examples.answer_lengths(role).sum()) for role in roles),
        "trained_tokens": sum(int(examples.trained_lengths(role).sum()) for role in roles),
    }


def make_gate_report(facts: Json, findings: Findings, sample: BiasSample, *, not_checked: Sequence[str] = ()) -> Json:
    """The content of gate.json; `facts` describes what was checked (source, format, rows, sha256)."""
    return {
        **facts,
        "findings": [_finding(kind, findings) for kind in findings.by_kind],
        "not_checked": list(not_checked),
        "most_rows_per_kind": MOST_ROWS,
        **findings.measured,
        "biases": measure_biases(sample),
    }


def _finding(kind: str, findings: Findings) -> Json:
    finding = findings.by_kind[kind]
    rows = finding.row_count() or finding.count
    return {
        "kind": kind,
        "count": rows,
        "rows": finding.distinct(),
        "action": finding.action(),
        **({"sources": sources} if (sources := findings.by_source(finding)) else {}),
        **({"occurrences": finding.count} if finding.count != rows else {}),
        **({"example": finding.example} if finding.example else {}),
    }
