"""Conversations in the forms that files use, as lists of {role, content, ...}: other keys, other role names, written as text."""

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from finegrain.data.source_rows import CellError

WHO = ("role", "from", "speaker")
"""Keys that hold the role."""
WHAT = ("content", "value", "text")
"""Keys that hold the content."""
CALLING = "function_call"
"""ShareGPT's role of a turn in which the assistant calls a tool; its content is the call."""
SPEAKERS = {
    **dict.fromkeys(("user", "human", "prompter", "customer", "client"), "user"),
    **dict.fromkeys(("assistant", CALLING, "gpt", "bot", "model", "ai", "chatgpt", "chatbot", "agent", "llm"), "assistant"),
    **dict.fromkeys(("system", "system_prompt"), "system"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
}
"""Role names in public datasets, in lower case, and the names that chat templates use."""
OTHERS = frozenset({"developer", "function", "ipython", "environment", "context", "document", "documents"})
"""Further roles that templates know; they keep their names, and none of them is the assistant."""
LONGEST = 1 << 20
"""Maximum length of a conversation written as text that is parsed."""
WRITTEN = re.compile(r"""\s*(?:\[\s*)?\{\s*['"](?:role|from|content|value)['"]\s*:""")
CLOSED = re.compile(r"[\]}]\s*\Z")
NUMPY_BREAK = re.compile(r"\}\s*\n\s*\{")
"""A numpy array is printed without commas, one item per line; inside a quoted text a line break is written as \\n."""


def to_messages(value: Any) -> list[dict[str, Any]] | None:
    """A cell that holds a conversation, or one message, as messages; None for any other cell."""
    if isinstance(value, Mapping):
        value = (value,)
    if not isinstance(value, list | tuple) or not value or not all(_is_message(turn) for turn in value):
        return None
    return [_message(turn) for turn in value]


def _is_message(turn: Any) -> bool:
    if not isinstance(turn, Mapping):
        return False
    return isinstance(turn.get("role"), str) or (any(isinstance(turn.get(who), str) for who in WHO) and any(what in turn for what in WHAT))


def _message(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Role and content first, whatever their keys; other keys unchanged."""
    who = next(key for key in WHO if isinstance(turn.get(key), str))
    what = next((key for key in WHAT if turn.get(key) is not None), "content")
    name = turn[who].strip()
    others = {key: value for key, value in turn.items() if key not in (who, what, "role", "content")}
    said = _calls(turn.get(what)) if name.lower() == CALLING and not others.get("tool_calls") else {"content": turn.get(what)}
    return {"role": SPEAKERS.get(name.lower(), name), **said, **others}


def _calls(said: Any) -> dict[str, Any]:
    """The content and calls of a turn that is one or several calls; text that is not a call is the assistant's content."""
    found = _read(said) if isinstance(said, str) else said
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
        return {"content": said}
    return {"content": None, "tool_calls": [{"type": "function", "function": call} for call in calls]}


def parse_messages(text: str, column: str) -> list[dict[str, Any]] | None:
    """The messages of a conversation written as text, in JSON or as printed by Python; None for any other text."""
    if not WRITTEN.match(text) or not CLOSED.search(text):
        return None
    if len(text) > LONGEST:
        raise CellError(
            "missing_column", f"column {column!r}: found a conversation written as text of {len(text)} characters; expected a list of messages"
        )
    found = _read(text)
    if found is not None:
        return to_messages(found)
    raise CellError(
        "missing_column", f"column {column!r}: found a conversation written as text that is neither JSON nor Python: {text.strip()[:40]!r} ..."
    )


def _read(text: str) -> Any:
    """The value of a text in JSON or as printed by Python; None for any other text."""
    for read in (json.loads, _literal):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _literal(text: str) -> Any:
    with warnings.catch_warnings():  # a stray backslash in the data deserves no warning
        warnings.simplefilter("ignore")
        return ast.literal_eval(NUMPY_BREAK.sub("}, {", text.strip()))
