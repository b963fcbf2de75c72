"""One path from a source to tokenised examples: read, recognise, convert, pass the gate, tokenise, report."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from finegrain.data.findings import Findings
from finegrain.data.formats import Format
from finegrain.data.gate.biases import Sample
from finegrain.data.gate.keeper import FIRST_ROWS, Keeper, common_format, own_shape
from finegrain.data.gate.report import gate_report
from finegrain.data.gate.settings import TOKEN_KINDS, Gate, Listing, Stopping
from finegrain.data.read import Source, read
from finegrain.data.records import FastTokenizer, Located, Shape
from finegrain.data.store import ExampleStore, collect
from finegrain.data.tokenise import tokenise
from finegrain.data.truncate import KeepEnd, KeepStart, Tokenise, within_limit
from finegrain.errors import DataError
from finegrain.types import Json

__all__ = ["Gate", "KeepEnd", "KeepStart", "LoadedData", "Shape", "Tokenise", "load_examples"]


@dataclass(frozen=True)
class LoadedData:
    """Examples, and what became of the rows they came from."""

    examples: ExampleStore
    report: Json
    """JSON: source, files, sha256, format, rows, examples, kept, dropped, findings and counts."""
    gate: Json
    """What stands in gate.json."""


def load_examples(
    source: str, tokenizer: FastTokenizer, *, shape: Shape, settings: Tokenise, limit: int | None = None, gate: Gate = Gate()
) -> LoadedData:
    """The examples of a file, folder or Hub name in the shape a recipe needs; `limit` counts rows of the source."""
    rows = read(source, limit)
    first, stream = _first(rows)
    entry = common_format(first)
    findings = Findings()
    sample, decide = Sample(gate.bias_rows), Stopping(gate)
    keeper = Keeper(decide, entry, shape, first, findings, sample)
    examples = collect(tokenise(keeper.kept(stream), tokenizer, settings, findings, decide))
    if not examples:
        raise DataError(f"{source}: no {shape.value} example left of {rows.count} rows ({entry.name}); dropped: {findings.in_words() or 'none'}")
    facts = _facts(source, rows, entry, shape)
    return LoadedData(
        examples,
        {**facts, "max_length": within_limit(settings, tokenizer).max_length, **_report(rows, entry, findings, examples)},
        gate_report(facts, findings, sample),
    )


def check_rows(source: str, tokenizer: FastTokenizer | None, *, settings: Tokenise, limit: int | None = None, gate: Gate = Gate()) -> Json:
    """What stands in gate.json of the rows in the shape they serve first; what would stop a training run is listed, nothing is kept."""
    rows = read(source, limit)
    first, stream = _first(rows)
    entry = common_format(first)
    shape = own_shape(entry)
    findings, sample, decide = Findings(), Sample(gate.bias_rows), Listing(gate)
    kept = Keeper(decide, entry, shape, first, findings, sample).kept(stream)
    left = sum(1 for _ in (kept if tokenizer is None else tokenise(kept, tokenizer, settings, findings, decide)))
    facts = {**_facts(source, rows, entry, shape), "examples_left": left}
    return gate_report(facts, findings, sample, not_checked=TOKEN_KINDS if tokenizer is None else ())


def _first(rows: Source) -> tuple[list[Located], Iterator[Located]]:
    """The first rows, and all of them."""
    stream = rows.rows
    first = list(islice(stream, FIRST_ROWS))
    return first, chain(first, stream)


def _facts(source: str, rows: Source, entry: Format, shape: Shape) -> Json:
    """What identifies rows that were read to their end."""
    return {"source": source, "sha256": rows.sha256(), "format": entry.name, "shape": shape.value, "rows": rows.count}


def _report(rows: Source, entry: Format, findings: Findings, examples: ExampleStore) -> Json:
    """What can be counted from rows, findings and examples."""
    roles = examples.roles
    return {
        "files": rows.files,
        "columns": examples.columns,
        "partial_columns": list(examples.files.partial),
        "kept": len(examples),
        "dropped": findings.dropped(),
        "findings": findings.as_json(),
        "messages": [f"{entry.name}: {rows.count} rows, {len(examples)} examples kept", *findings.messages()],
        "answers": len(examples) * len(roles),
        **{kind: findings.count(kind) for kind in ("prompt_truncated", "answer_truncated", "boundary_differs", "decode_differs")},
        "annotated": {role: examples.annotated(role) for role in roles},
        "token_rewards": {role: examples.rewarded(role) for role in roles},
        "prompt_tokens": int(examples.prompt_lengths.sum()),
        "answer_tokens": sum(int(examples.answer_lengths(role).sum()) for role in roles),
        "trained_tokens": sum(int(examples.trained_lengths(role).sum()) for role in roles),
    }
