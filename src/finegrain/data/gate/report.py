"""gate.json: every finding with its row numbers, what was not looked for, and the biases."""

from collections.abc import Sequence

from finegrain.data.findings import MOST_ROWS, Findings
from finegrain.data.gate.biases import Sample, biases
from finegrain.types import Json


def gate_report(facts: Json, findings: Findings, sample: Sample, *, not_checked: Sequence[str] = ()) -> Json:
    """What stands in gate.json; `facts` says of what (source, format, rows, sha256)."""
    return {
        **facts,
        "findings": [_finding(kind, findings) for kind in findings.by_kind],
        "not_checked": list(not_checked),
        "most_rows_per_kind": MOST_ROWS,
        "biases": biases(sample),
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
