"""One path from a source to tokenised examples: read, recognise, convert, pass the gate, tokenise, report."""

from dataclasses import dataclass

from finegrain.data.findings import Findings
from finegrain.data.formats import Format
from finegrain.data.gate.biases import Sample
from finegrain.data.gate.keeper import FIRST_ROWS, Keeper, common_format, own_shape
from finegrain.data.gate.report import gate_report
from finegrain.data.gate.settings import TOKEN_KINDS, Gate, Listing, Stopping
from finegrain.data.read import Source, read
from finegrain.data.records import Example, FastTokenizer, Shape
from finegrain.data.tokenise import tokenise
from finegrain.data.truncate import KeepEnd, KeepStart, Tokenise
from finegrain.errors import DataError
from finegrain.types import Json

__all__ = ["Gate", "KeepEnd", "KeepStart", "LoadedData", "Shape", "Tokenise", "load_examples"]


@dataclass(frozen=True)
class LoadedData:
    """Examples, and what became of the rows they came from."""

    examples: list[Example]
    report: Json
    """JSON: source, files, sha256, format, rows, examples, kept, dropped, findings and counts."""
    gate: Json
    """What stands in gate.json."""


def load_examples(
    source: str, tokenizer: FastTokenizer, *, shape: Shape, settings: Tokenise, limit: int | None = None, gate: Gate = Gate()
) -> LoadedData:
    """The examples of a file, folder or Hub name in the shape a recipe needs; `limit` counts rows of the source."""
    rows = read(source, limit)
    entry = common_format(rows.rows[:FIRST_ROWS])
    findings = Findings()
    sample, decide = Sample(gate.bias_rows), Stopping(gate)
    keeper = Keeper(decide, entry, shape, rows.rows[:FIRST_ROWS], findings, sample)
    examples = list(tokenise(keeper.kept(rows.rows), tokenizer, settings, findings, decide))
    if not examples:
        raise DataError(f"{source}: no {shape.value} example left of {len(rows.rows)} rows ({entry.name}); dropped: {findings.in_words() or 'none'}")
    partial = _drop_partial_columns(examples)
    asked = {"source": source, "shape": shape.value, "max_length": settings.max_length}
    columns = {"columns": sorted(examples[0].columns), "partial_columns": partial}
    return LoadedData(
        examples,
        {**asked, **columns, **_report(rows, entry, findings, examples)},
        gate_report(_facts(source, rows, entry, shape), findings, sample),
    )


def check_rows(source: str, tokenizer: FastTokenizer | None, *, settings: Tokenise, limit: int | None = None, gate: Gate = Gate()) -> Json:
    """What stands in gate.json of the rows in the shape they serve first; what would stop a training run is listed, nothing is kept."""
    rows = read(source, limit)
    entry = common_format(rows.rows[:FIRST_ROWS])
    shape = own_shape(entry)
    findings, sample, decide = Findings(), Sample(gate.bias_rows), Listing(gate)
    kept = Keeper(decide, entry, shape, rows.rows[:FIRST_ROWS], findings, sample).kept(rows.rows)
    left = sum(1 for _ in (kept if tokenizer is None else tokenise(kept, tokenizer, settings, findings, decide)))
    facts = {**_facts(source, rows, entry, shape), "examples_left": left}
    return gate_report(facts, findings, sample, not_checked=TOKEN_KINDS if tokenizer is None else ())


def _facts(source: str, rows: Source, entry: Format, shape: Shape) -> Json:
    return {"source": source, "sha256": rows.sha256, "format": entry.name, "shape": shape.value, "rows": len(rows.rows)}


def _drop_partial_columns(examples: list[Example]) -> list[str]:
    """Takes columns that not every example has out of all of them; their names."""
    everywhere = set.intersection(*(set(example.columns) for example in examples))
    partial = {name for example in examples for name in example.columns} - everywhere
    for example in examples:
        for name in partial & example.columns.keys():
            del example.columns[name]
    return sorted(partial)


def _report(read_rows: Source, entry: Format, findings: Findings, examples: list[Example]) -> Json:
    """What can be counted from rows, findings and examples."""
    answers = [response for example in examples for response in example.responses.values()]
    roles = examples[0].responses
    return {
        "files": read_rows.files,
        "sha256": read_rows.sha256,
        "format": entry.name,
        "rows": len(read_rows.rows),
        "kept": len(examples),
        "dropped": findings.dropped(),
        "findings": findings.as_json(),
        "messages": [f"{entry.name}: {len(read_rows.rows)} rows, {len(examples)} examples kept", *findings.messages()],
        "answers": len(answers),
        **{kind: findings.count(kind) for kind in ("prompt_truncated", "answer_truncated", "boundary_differs", "decode_differs")},
        "annotated": {role: sum(example.spans[role] is not None for example in examples) for role in roles},
        "token_rewards": {role: sum(example.token_rewards[role] is not None for example in examples) for role in roles},
        "prompt_tokens": sum(len(example.prompt) for example in examples),
        "answer_tokens": sum(len(response.ids) for response in answers),
        "trained_tokens": sum(int(response.mask.sum()) for response in answers),
    }
