"""What was found in the data and what was done about it: kind, count, row numbers, action. Every finding is counted."""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from finegrain.data.columns import list_names
from finegrain.data.places import Places
from finegrain.types import Json

TOLD = ("unread", "reasoning", "fractional_weight", "repeated_column")
"""Kinds whose example is the finding itself, so that the message about them shows it."""
EXAMPLES = 20
"""Maximum number of rows per kind in run.json."""
MOST_ROWS = 100_000
"""Maximum number of rows kept per kind; later rows are only counted."""


@dataclass
class Finding:
    """One kind of finding."""

    count: int = 0
    """Occurrences; a row may have several."""
    actions: Counter[str] = field(default_factory=Counter)
    """Occurrences by what was done: dropped, kept, cut, clipped or ignored."""
    rows: "array[int]" = field(default_factory=lambda: array("q"))
    """Row numbers in the order found, at most MOST_ROWS."""
    changes: int = 0
    """How often the row number changed: the number of distinct rows where they are in order."""
    parts: Counter[int] = field(default_factory=Counter)
    """Row numbers by source, where there are several."""
    example: str = ""
    """A description of the first occurrence, where a row number does not show it."""

    def action(self) -> str:
        """What was done, with counts where the actions differ."""
        if len(self.actions) == 1:
            return next(iter(self.actions))
        return ", ".join(f"{count} {action}" for action, count in sorted(self.actions.items()))

    def distinct(self) -> list[int]:
        """Row numbers in order, each once."""
        return sorted(set(self.rows))

    def row_count(self) -> int:
        """Number of rows affected; 0 for a finding about the whole file."""
        return len(set(self.rows)) if self.changes <= MOST_ROWS else self.changes


class Findings:
    """Collects findings in the order of the data."""

    def __init__(self, places: Places | None = None) -> None:
        """`places` where the rows come from several sources."""
        self._places = places
        self._dropped: Counter[tuple[int, str]] = Counter()
        self.by_kind: dict[str, Finding] = {}
        self.measured: Json = {}
        """What was measured over all rows, for gate.json."""
        self._drops: Counter[str] = Counter()
        self._last: dict[str, int] = {}
        self._unread: dict[str, dict[str, None]] = {}

    def add(self, kind: str, row: int, action: str, example: str = "") -> None:
        """Counts one more occurrence of `kind` in source row `row`."""
        finding = self.add_file(kind, action, example)
        if self._last.get(kind) != row:
            self._last[kind] = row
            finding.changes += 1
            if self._places is not None:
                finding.parts[self._places.part(row)] += 1
            if len(finding.rows) < MOST_ROWS:
                finding.rows.append(row)

    def add_unread(self, row: int, what: str, names: Iterable[str]) -> None:
        """Counts a row with columns or message keys (`what`) that hold a value and are not read; the example names all that were found."""
        told = self._unread.setdefault(what, {})
        before = len(told)
        told.update(dict.fromkeys(names))
        self.add("unread", row, "kept")
        if len(told) > before:
            self.by_kind["unread"].example = "; ".join(f"{what} that are not read: {list_names(named)}" for what, named in self._unread.items())

    def add_file(self, kind: str, action: str, example: str = "", count: int = 1) -> Finding:
        """Counts occurrences of `kind` that concern no row in particular."""
        finding = self.by_kind.setdefault(kind, Finding(example=example))
        finding.count += count
        finding.actions[action] += count
        return finding

    def drop(self, kind: str, row: int, example: str = "") -> None:
        """Counts an occurrence of `kind` that drops an example; of several kinds in one example only the first is counted."""
        self.add(kind, row, "dropped", example)
        self._drops[kind] += 1
        if self._places is not None:
            self._dropped[self._places.part(row), kind] += 1

    def count(self, kind: str) -> int:
        """How often `kind` was found."""
        return self.by_kind[kind].count if kind in self.by_kind else 0

    def dropped(self) -> dict[str, int]:
        """Dropped examples by the kind that dropped them; each example is counted once."""
        return dict(self._drops)

    def in_words(self) -> str:
        """What dropped examples, for an error message."""
        examples = {kind: self.by_kind[kind].example for kind in self._drops}
        return ", ".join(f"{kind} {count}" + (f" ({examples[kind]})" if examples[kind] else "") for kind, count in self._drops.items())

    def messages(self) -> list[str]:
        """One line per kind."""
        return [_line(kind, finding, self.by_source(finding)) for kind, finding in self.by_kind.items()]

    def by_source(self, finding: Finding) -> list[Json]:
        """The row numbers of a finding by source; empty where there is one source."""
        if self._places is None or not finding.rows:
            return []
        few, found = finding.changes <= MOST_ROWS, self._places.split(finding.distinct())
        named = enumerate(zip(self._places.names, found, strict=True))
        return [{"source": name, "count": len(rows) if few else finding.parts[part], "rows": rows} for part, (name, rows) in named if rows]

    def of_source(self, part: int) -> Json:
        """What happened to the rows of one of several sources: dropped examples by kind, and rows by finding."""
        dropped = {kind: count for (own, kind), count in self._dropped.items() if own == part}
        return {"dropped": dropped, "findings": {kind: finding.parts[part] for kind, finding in self.by_kind.items() if finding.parts[part]}}

    def as_json(self) -> list[Json]:
        """One object per kind, with the first row numbers."""
        return [
            {
                "kind": kind,
                "count": f.count,
                "rows": f.distinct()[:EXAMPLES],
                "action": f.action(),
                **({"sources": [{**one, "rows": one["rows"][:EXAMPLES]} for one in sources]} if (sources := self.by_source(f)) else {}),
                **({"example": f.example} if f.example else {}),
            }
            for kind, f in self.by_kind.items()
        ]


def format_rows(rows: Sequence[int], sources: Sequence[Json]) -> str:
    """The first row numbers as text, by source where there are several."""
    if not sources:
        return f"rows {', '.join(map(str, rows[:5]))}{' …' if len(rows) > 5 else ''}" if rows else ""
    return "; ".join(f"{one['source']} {format_rows(one['rows'], ())}" for one in sources)


def format_source(one: Json) -> str:
    """One of several sources on a line of the report."""
    weight = f", weight {one['weight']:g}" if "weight" in one else ""
    return f"{one['source']}: {one['format']}{weight}: {one['rows']} rows, {one['kept']} examples kept"


def _line(kind: str, finding: Finding, sources: Sequence[Json]) -> str:
    rows = f" ({words})" if (words := format_rows(finding.distinct(), sources)) else ""
    line = f"{kind}: {finding.count} {finding.action()}{rows}" if rows else f"{kind}: {finding.action()}"
    return f"{line}: {finding.example}" if finding.example and (not rows or kind in TOLD) else line
