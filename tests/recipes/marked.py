"""Rows as the page of `finegrain mark` exports them."""

from typing import Any

from finegrain.recipes.marking.content import digest_text

Row = dict[str, Any]
SPANS = {"chosen": "chosen_spans", "rejected": "rejected_spans", "completion": "spans"}


def exported(
    row: Row,
    annotator: str,
    number: int = 0,
    *,
    by: str = "data",
    saved: str = "2026-01-01T00:00:00.000Z",
    done: bool = True,
    ids: dict[str, str] | None = None,
    **marks: list[Row] | None,
) -> Row:
    """The row with one person's spans by column of the answer (`chosen`, `completion`); an answer without is annotated, and nothing is marked."""
    roles = {name: "answer" if name == "completion" else name for name in SPANS if name in row}
    spans = {name: marks.get(name, []) for name in roles}
    named = {
        SPANS[name]: None if own is None else [{**span, "annotator": annotator} if annotator else span for span in own] for name, own in spans.items()
    }
    answers = {role: {"id": (ids or {}).get(name, f"{number}/{role}"), "sha256": digest_text(row[name])} for name, role in roles.items()}
    record = {"version": 1, "data": "d", "task": "t", "saved": saved, "done": done, "preference": {"by": by}, "answers": answers}
    return {**row, **named, **({"annotator": annotator} if annotator else {}), "mark": record}
