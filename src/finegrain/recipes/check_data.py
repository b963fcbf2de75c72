"""`finegrain check-data`: the data gate by itself. It lists every row that looks wrong, trains nothing and changes nothing."""

import json
from pathlib import Path
from typing import Any

from finegrain.commands.check_data import CheckDataSettings
from finegrain.data.findings import format_rows, format_source
from finegrain.data.load import Shape, Tokenise, check_rows
from finegrain.files import write_new
from finegrain.models.load import load_own_tokenizer
from finegrain.recipes.quiet import quiet_transformers
from finegrain.runs import check_free
from finegrain.terminal import write_line
from finegrain.types import Json

SHOWN = 20
"""Row numbers per kind on stdout; gate.json has them all."""


def run_check_data(settings: CheckDataSettings) -> dict[str, Any]:
    """Returns the report with the first row numbers of each kind; the whole report goes to --out."""
    if settings.out is not None:
        check_free(settings.out, settings.data)
    report = check_rows(
        settings.data,
        _load_tokenizer(settings.model),
        settings=Tokenise(max_length=settings.max_length),
        limit=settings.limit,
        gate=settings.gate,
        shape=None if settings.shape is None else Shape(settings.shape),
    )
    for line in describe_report(report):
        write_line(line)
    if settings.out is not None:
        write_new(settings.out, [json.dumps(report) + "\n"])
    return {**report, "findings": [shorten_finding(finding) for finding in report["findings"]], "out": _name(settings.out)}


def shorten_finding(finding: Json) -> Json:
    """The finding with its first row numbers only; if there are several sources, with the first ones of each."""
    sources = [{**one, "rows": one["rows"][:SHOWN]} for one in finding.get("sources", [])]
    return {**finding, "rows": finding["rows"][:SHOWN], **({"sources": sources} if sources else {})}


def _name(out: Path | None) -> str | None:
    return None if out is None else str(out)


def _load_tokenizer(model: str | None) -> Any:
    if model is None:
        return None

    quiet_transformers()
    return load_own_tokenizer(model)


def describe_finding(finding: Json) -> str:
    """One finding for a person: kind, count, what was done, the first rows and an example."""
    rows = format_rows(finding["rows"], finding.get("sources", []))
    example = f": {finding['example']}" if finding.get("example") else ""
    return f"{finding['kind']}: {finding['count']} {finding['action']}" + (f" ({rows})" if rows else "") + example


def describe_report(report: Json) -> list[str]:
    """The report for a person, a line per finding and per bias."""
    lines = [f"{report['format']}: {report['rows']} rows, {report['examples_left']} {report['shape']} examples would be trained on"]
    lines += map(format_source, report.get("sources", []))
    lines += map(describe_finding, report["findings"])
    if report["not_checked"]:
        lines.append(f"not checked without --model: {', '.join(report['not_checked'])}")
    for name, bias in report["biases"].items():
        if isinstance(bias, dict) and bias["accuracy"] is not None:
            lines.append(f"bias {name}: predicts {bias['accuracy']:.1%} [{bias['low']:.1%}, {bias['high']:.1%}] of {bias['rows']} labels")
    return lines
