"""The text of an answer, which character spans refer to: its turns in the plain rendering, whatever template produces the tokens.

A turn is written as its reasoning in <think> tags, its content, and its tool calls as objects in <tool_call> tags [choice];
most turns consist of their content alone. Spans in the columns of the data count the characters of the contents alone, because
that is what an annotator sees; `shift_spans` maps them to the text.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from finegrain.data.conversations import ASSISTANT, CALLS, REASONING, format_header
from finegrain.data.records import Text, Turn
from finegrain.types import CharSpan


class TurnText(NamedTuple):
    """The parts of a turn, in the order of its text."""

    reasoning: str
    """Reasoning from a separate key; reasoning inside the content belongs to the content."""
    content: str
    calls: str
    """Every call in the plain form."""

    def text(self) -> str:
        """The turn's text."""
        return f"{self.opening()}{self.content}{self.closing()}"

    def opening(self) -> str:
        """The text before the content."""
        return f"<think>\n{self.reasoning}\n</think>\n\n" if self.reasoning else ""

    def closing(self) -> str:
        """The text after the content."""
        return f"\n{self.calls}" if self.content and self.calls else self.calls


def split_turn(turn: Turn) -> TurnText:
    """The parts of a turn."""
    if not turn.more or turn.role != ASSISTANT:
        return TurnText("", turn.content, "")
    others = turn.others()
    reasoning = next((others[name] for name in REASONING if isinstance(others.get(name), str) and others[name].strip()), "")
    calls = [call for name in CALLS for call in _listed(others.get(name))]
    return TurnText(reasoning, turn.content, "\n".join(f"<tool_call>\n{_call(call)}\n</tool_call>" for call in calls))


def _listed(calls: Any) -> list[Any]:
    return calls if isinstance(calls, list) else [calls] if calls else []


def _call(call: Any) -> str:
    """Name and arguments of a call; arguments written as JSON text are parsed into an object."""
    said = call.get("function", call) if isinstance(call, dict) else call
    if isinstance(said, dict) and isinstance(said.get("arguments"), str):
        try:
            said = {**said, "arguments": json.loads(said["arguments"])}
        except (ValueError, RecursionError):
            pass
    return json.dumps(said, ensure_ascii=False)


def answer_text(turns: tuple[Turn, ...]) -> tuple[str, list[int]]:
    """The text of an answer, and where each turn's words start in it."""
    text, starts = "", []
    for i, turn in enumerate(turns):
        if i or turn.role != ASSISTANT:
            text += f"{turn_separator(i)}{format_header(turn.role)} "
        starts.append(len(text))
        text += split_turn(turn).text()
    return text, starts


def turn_separator(turns_before: int) -> str:
    """The separator between turns in the plain rendering."""
    return "\n\n" if turns_before else ""


def join_answer(content: Text) -> str:
    """The text of an answer given as a string or as turns."""
    return content if isinstance(content, str) else answer_text(content)[0]


def shift_spans(spans: Sequence[CharSpan] | None, content: Text) -> list[CharSpan] | None:
    """Maps spans over the contents of an answer's turns to spans over its text."""
    if spans is None or isinstance(content, str) or not any(turn.more for turn in content):
        return None if spans is None else list(spans)
    bare, befores = answer_text(tuple(Turn(turn.role, turn.content) for turn in content))
    text, starts = answer_text(content)
    shifts = [(before, start + len(split_turn(turn).opening()) - before) for turn, before, start in zip(content, befores, starts, strict=True)]
    shifts.append((len(bare), len(text) - len(bare)))
    return [span._replace(start=_shifted(span.start, shifts), end=_shifted(span.end - 1, shifts) + 1) for span in spans]


def _shifted(place: int, shifts: Sequence[tuple[int, int]]) -> int:
    """A position moved by the shift of the last turn that begins at or before it."""
    return place + next((shift for begin, shift in reversed(shifts) if begin <= place), shifts[0][1])
