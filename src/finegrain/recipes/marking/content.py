"""An answer as people mark it: its text, the digest that identifies it, and the form in which it is exported.

People mark what spans in the columns of the data count: the contents of the turns, without reasoning and calls under their own keys.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from finegrain.data.answer_text import answer_text, shift_spans, split_turn
from finegrain.data.conversations import read_turns
from finegrain.data.records import Text, Turn
from finegrain.types import CharSpan


def marked_text(content: Text) -> str:
    """The text that spans in the columns of the data count."""
    return content if isinstance(content, str) else answer_text(_bare(content))[0]


def digest_text(text: str) -> str:
    """What identifies a text: SHA-256, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest_prompt(cell: Any) -> str:
    """What identifies a prompt as exported."""
    return digest_text(json.dumps(cell, ensure_ascii=False, sort_keys=True))


def write_content(content: Text) -> Any:
    """The content as a cell of an exported row: a string, or messages."""
    return content if isinstance(content, str) else [turn.message() for turn in content]


def read_content(cell: Any, column: str) -> Text:
    """The content that `write_content` wrote."""
    return cell if isinstance(cell, str) else read_turns(cell, column)


def hidden_parts(content: Text) -> list[str]:
    """Reasoning and calls of the turns, which are shown beside the text and cannot be marked."""
    if isinstance(content, str):
        return []
    parts = [split_turn(turn) for turn in content]
    return [text for part in parts for text in (part.reasoning, part.calls) if text]


def unshift_spans(spans: Iterable[CharSpan], content: Text) -> list[CharSpan]:
    """Spans over the whole text of an answer as spans over the text that people mark; what lies outside it is cut."""
    length = len(marked_text(content))
    if isinstance(content, str) or not any(turn.more for turn in content):
        cut = (span._replace(start=max(span.start, 0), end=min(span.end, length)) for span in spans)
        return [span for span in cut if span.start < span.end]
    places = [span.start for span in shift_spans([CharSpan(place, place + 1, 0.0) for place in range(length)], content) or ()]
    found = []
    for span in spans:
        inside = [place for place, whole in enumerate(places) if span.start <= whole < span.end]
        if inside:
            found.append(span._replace(start=inside[0], end=inside[-1] + 1))
    return found


def _bare(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    return tuple(Turn(turn.role, turn.content) for turn in turns)
