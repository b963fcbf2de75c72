"""The demo's committed results: what `finegrain demo` measured with its defaults, and the tables of README and guide that show it.

    finegrain demo --out build/demo
    python benchmarks/demo.py build/demo

Writes benchmarks/results/demo.md (the demo's own table) and demo.json (every reading of every seed), and the table and the sentences
between the marks of README.md and docs/guides/demo.md.
"""

import json
import sys
from pathlib import Path

from places import RESULTS, ROOT

from finegrain.recipes.demo.rows import ROWS
from finegrain.recipes.demo.summary import baselines_in_words, cells
from finegrain.types import Json

SHOWN = {"README.md": (0, 1, 2, 3, 6), "docs/guides/demo.md": (0, 2, 3, 4, 5, 6, 7)}
"""By page, the columns of the table that it shows."""
START, END = "<!-- demo: table -->", "<!-- demo: end -->"


def table(summary: Json, columns: tuple[int, ...]) -> str:
    """The rows as Markdown."""
    header, *lines = cells(summary)
    picked = [[line[column] for column in columns] for line in (header, ["---"] * len(header), *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in picked)


def main() -> None:
    """Copy, condense and show."""
    folder = Path(sys.argv[1])
    record = json.loads((folder / "demo.json").read_text())
    assert list(record["summary"]) == [row.name for row in ROWS], "a demo of other rows than those of this code"
    for seed in record["seeds"]:
        for row in seed["rows"].values():
            del row["evaluation"]
    record["settings"] = {name: value for name, value in record["settings"].items() if name != "out"}
    (RESULTS / "demo.json").write_text(json.dumps(record) + "\n")
    (RESULTS / "demo.md").write_text(
        (folder / "demo.md").read_text().rstrip() + "\n\nMade by `finegrain demo --out build/demo` and `python benchmarks/demo.py build/demo`.\n"
    )
    words = f"{baselines_in_words(record['baseline_aurocs'])}\n\n{record['verdict']}"
    for page, columns in SHOWN.items():
        before, _, rest = (ROOT / page).read_text().partition(START)
        after = rest.partition(END)[2]
        assert after, f"{page} has no marks for the table"
        (ROOT / page).write_text(f"{before}{START}\n{table(record['summary'], columns)}\n\n{words}\n{END}{after}")


if __name__ == "__main__":
    main()
