"""Keys of messages that hold a value and have no effect: neither finegrain nor the chat template reads them.

Whether a template reads a key is determined by rendering conversations with and without it.
"""

from array import array
from collections import Counter
from collections.abc import Sequence

from finegrain.data.conversations import CALLS, REASONING, to_json_text
from finegrain.data.findings import MOST_ROWS, Findings
from finegrain.data.records import Row, Turn
from finegrain.data.render import TRAINS, parse_weight
from finegrain.data.templates import ChatTemplate, RenderError

TRIES = 8
"""Rows on which a key is tried before it is reported as unread."""
TOOLS = "tools"
KEYS, COLUMNS = "message keys", "columns"
"""How the finding names these keys."""


class UnreadKeys:
    """The keys of one source's messages."""

    def __init__(self, template: ChatTemplate | None) -> None:
        self._template = template
        self._read: set[tuple[str, str]] = set()
        self._tries: Counter[tuple[str, str]] = Counter()
        self._rows: dict[tuple[str, str], array[int]] = {}

    def look(self, number: int, row: Row) -> None:
        """Checks one more row."""
        if isinstance(row.prompt, str):
            return
        for answer in row.answers.values():
            assert not isinstance(answer.content, str)
            turns = row.prompt + answer.content
            for key in {(turn.role, name) for turn in turns if turn.more for name in _holding(turn)} | ({("", TOOLS)} if row.tools else set()):
                if key not in self._read:
                    self._try(key, number, turns, row.tools)

    def _try(self, key: tuple[str, str], number: int, turns: tuple[Turn, ...], tools: str) -> None:
        rows = self._rows.setdefault(key, array("q"))
        if len(rows) < MOST_ROWS and (not rows or rows[-1] != number):
            rows.append(number)
        if self._tries[key] < TRIES:
            self._tries[key] += 1
            if self._changes(key, turns, tools):
                self._read.add(key)
                del self._rows[key]

    def _changes(self, key: tuple[str, str], turns: tuple[Turn, ...], tools: str) -> bool:
        role, name = key
        if self._template is None:
            return name in (*REASONING, *CALLS)
        without = tuple(_without(turn, name) if turn.role == role else turn for turn in turns)
        try:
            return self._template(turns, tools) != self._template(without, "" if not role else tools)
        except RenderError:
            return True

    def report(self, findings: Findings) -> None:
        """Adds the finding `unread`."""
        for what, own in ((KEYS, [key for key in self._rows if key[0]]), (COLUMNS, [key for key in self._rows if not key[0]])):
            names = sorted({name for _, name in own})
            for number in sorted({number for key in own for number in self._rows[key]}):
                findings.add_unread(number, what, names)


def _holding(turn: Turn) -> Sequence[str]:
    """Keys of a turn with a value that matters and that finegrain does not read."""
    others = turn.others()
    told = [others[name] for name in REASONING if name in others]
    again = {name for place, name in enumerate(name for name in REASONING if name in others) if told[place] in told[:place]}
    return [
        name
        for name, value in others.items()
        if not (name in TRAINS and parse_weight(value) is not None) and name not in again and value not in (None, "", False, [], {})
    ]


def _without(turn: Turn, name: str) -> Turn:
    others = {key: value for key, value in turn.others().items() if key != name}
    return turn._replace(more=to_json_text(others, "messages") if others else "")
