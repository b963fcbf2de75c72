"""What was found in the data and what was done about it: kind, count, example rows, action. Nothing disappears uncounted."""

from dataclasses import dataclass, field

from finegrain.types import Json

EXAMPLES = 20
"""Row numbers kept per kind."""


@dataclass
class Finding:
    """One kind of finding."""

    action: str
    """dropped, kept, cut, clipped or ignored."""
    count: int = 0
    rows: list[int] = field(default_factory=list)
    """The first distinct row numbers."""
    example: str = ""
    """The first occurrence in words, where a row number does not say it."""


class Findings:
    """Collects findings in the order of the data."""

    def __init__(self) -> None:
        self.by_kind: dict[str, Finding] = {}

    def add(self, kind: str, row: int, action: str, example: str = "") -> None:
        """One more occurrence of `kind` in source row `row`."""
        finding = self.by_kind.setdefault(kind, Finding(action, example=example))
        assert finding.action == action, (kind, action)
        finding.count += 1
        if len(finding.rows) < EXAMPLES and row not in finding.rows:
            finding.rows.append(row)

    def count(self, kind: str) -> int:
        """How often `kind` was found."""
        return self.by_kind[kind].count if kind in self.by_kind else 0

    def dropped(self) -> dict[str, int]:
        """Counts of the kinds that drop examples."""
        return {kind: finding.count for kind, finding in self.by_kind.items() if finding.action == "dropped"}

    def in_words(self) -> str:
        """What dropped examples, for an error message."""
        named = (f"{kind} {f.count}" + (f" ({f.example})" if f.example else "") for kind, f in self.by_kind.items() if f.action == "dropped")
        return ", ".join(named)

    def messages(self) -> list[str]:
        """One line per kind."""
        rows = {kind: ", ".join(map(str, f.rows[:5])) + (" …" if len(f.rows) > 5 else "") for kind, f in self.by_kind.items()}
        return [f"{kind}: {f.count} {f.action} (rows {rows[kind]})" for kind, f in self.by_kind.items()]

    def as_json(self) -> list[Json]:
        """One object per kind."""
        return [
            {"kind": kind, "count": f.count, "rows": list(f.rows), "action": f.action, **({"example": f.example} if f.example else {})}
            for kind, f in self.by_kind.items()
        ]
