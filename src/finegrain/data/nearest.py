"""The error message for a row of unknown form: the nearest form, and the renames that lead to it."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from finegrain.data.columns import list_names
from finegrain.data.shapes import Format

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("question", "instruction", "query", "input", "context", "user", "human", "source", "inputs", "post"),
    "chosen": ("accepted", "preferred", "better", "positive", "pos", "good", "winner", "win", "response_j", "output_1", "best"),
    "rejected": (
        "declined",
        "dispreferred",
        "worse",
        "negative",
        "neg",
        "bad",
        "loser",
        "lose",
        "response_k",
        "rejected_response",
        "output_2",
        "worst",
    ),
    "completion": ("response", "answer", "output", "target", "assistant", "gpt", "reply", "generation", "outputs", "targets"),
    "messages": ("conversations", "conversation", "dialog", "dialogue", "dialogs", "turns", "chat", "data", "items"),
    "label": ("labels", "kto_tag", "score", "is_good", "thumbs_up", "good", "class", "reward"),
    "text": ("content", "document", "body", "raw"),
    "ratings": ("scores", "rating", "attributes", "annotations"),
    "completions": ("steps", "solution_steps"),
}
"""Common names for finegrain's columns."""
NEAR = 0.7
"""Share of characters that a misspelt name has in common with the right one."""
RENAMED, UNUSED = 0.3, 0.6
"""Cost of a rename, and of a column that the format does not use, relative to a missing column (1)."""


class _Way(NamedTuple):
    """The changes from a row to a format."""

    cost: float
    renames: tuple[tuple[str, str], ...]
    added: tuple[str, ...]


def describe_nearest(row: Collection[str], formats: Iterable[Format]) -> str:
    """The columns found, the nearest format, and the changes that lead to it."""
    found = list_names(row) or "none"
    name, columns, way = min(((entry.name, entry.columns, _way(row, entry)) for entry in formats), key=lambda one: one[2].cost)
    if len(way.added) == len(columns):
        return (
            f"columns found: {found}; no known form has any of them; write pairs as prompt, chosen, rejected, demonstrations as prompt, completion "
            "or messages (docs/guides/data.md lists every form)"
        )
    steps = [f"rename {list_names([old])} to {new}" for old, new in way.renames] + ([f"add {list_names(way.added)}"] if way.added else [])
    told = ", ".join(steps) or "the types of its cells differ"
    return f"columns found: {found}; nearest known form: {name} ({', '.join(sorted(columns))}): {told} (docs/guides/data.md lists every form)"


def _way(row: Collection[str], entry: Format) -> _Way:
    spare = [name for name in row if name not in entry.columns]
    renames, added, cost = [], [], 0.0
    for column in sorted(entry.columns - set(row)):
        old = _likely(column, spare)
        if old is None:
            added.append(column)
            cost += 1
        else:
            spare.remove(old)
            renames.append((old, column))
            cost += RENAMED
    return _Way(cost + UNUSED * len(spare), tuple(renames), tuple(added))


def _likely(column: str, spare: list[str]) -> str | None:
    """The column that was probably meant by another name."""
    by_name = {name.strip().lower().replace("-", "_").replace(" ", "_"): name for name in reversed(spare)}
    for synonym in (column, *SYNONYMS.get(column, ())):
        if synonym in by_name:
            return by_name[synonym]
    near = difflib.get_close_matches(column, by_name, n=1, cutoff=NEAR)
    return by_name[near[0]] if near else None
