"""Turns of a conversation: reading them from rows, the common start of two conversations, the plain rendering.

The plain rendering is "Human: …\\n\\nAssistant: …", the form of hh-rlhf without its leading blank lines. The text of a
multi-turn answer, which character spans refer to, is its turns in this rendering, whatever template makes the tokens.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from finegrain.data.records import Turn
from finegrain.errors import DataError

ASSISTANT = "assistant"
NAMES = {"user": "Human", ASSISTANT: "Assistant", "system": "System"}
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message under which its reasoning stands, in the order in which transformers looks for it."""
CALLS = ("tool_calls", "function_call")
"""Keys of a message under which its calls of tools stand."""
SPEAKING = (*CALLS, *REASONING, "refusal")
"""Keys beside which a content of null is well-formed."""
HH_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def header(role: str) -> str:
    """What the plain rendering writes before a turn, without the space that follows."""
    return f"{NAMES.get(role, role.capitalize())}:"


def is_conversation(value: object) -> bool:
    """Whether a cell is a list of messages."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(turn, dict) and "role" in turn for turn in value)


def read_turns(value: Any, column: str) -> tuple[Turn, ...]:
    """The turns of a list of messages; every key that holds a value is kept."""
    if not is_conversation(value):
        raise DataError(f"column {column!r}: expected a list of messages {{role, content}}, found {type(value).__name__}")
    return tuple(_turn(message, column) for message in value)


def _turn(message: Mapping[str, Any], column: str) -> Turn:
    others = {name: message[name] for name in sorted(message) if name not in ("role", "content") and message[name] is not None}
    content = message.get("content")
    if content is None and any(others.get(name) for name in SPEAKING):
        return Turn(str(message["role"]), "", as_json({**others, "content": None}, column))
    return Turn(str(message["role"]), _text(content, message["role"], column), as_json(others, column) if others else "")


def _text(content: Any, role: str, column: str) -> str:
    """Text, or parts that are all text, joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple) or not all(isinstance(part, str | Mapping) for part in content):
        raise DataError(f"column {column!r}: expected text as content of the {role} turn, found {type(content).__name__}")
    parts = [part if isinstance(part, str) else part.get("text") for part in content]
    if kinds := sorted({str(one.get("type")) for one, text in zip(content, parts, strict=True) if not isinstance(text, str)}):
        raise DataError(f"column {column!r}: expected text as content of the {role} turn, found parts of type {', '.join(kinds)}")
    return "".join(parts)


def as_json(value: Any, column: str) -> str:
    """JSON text of what a cell holds, for comparison and for templates."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"column {column!r}: a value that JSON cannot hold ({error})") from error


def read_tools(value: Any) -> str:
    """The column `tools` as JSON text: a list of objects, or such a list written as JSON; empty for none."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError) as error:
            raise DataError(f"column 'tools': text that is not JSON ({error})") from None
    if not value:
        return ""
    if not isinstance(value, list | tuple) or not all(isinstance(tool, Mapping) for tool in value):
        raise DataError(f"column 'tools': expected a list of tools, each an object, found {value!r:.80}")
    return as_json(value, "tools")


def parse_transcript(text: str, column: str) -> tuple[Turn, ...]:
    """The turns of an hh-rlhf transcript, one leading space of each content stripped."""
    pieces = HH_TURN.split(text)
    if len(pieces) < 3 or pieces[0]:
        raise DataError(f"column {column!r}: expected a transcript that starts with '\\n\\nHuman:', found {text[:40]!r}")
    roles = {"Human": "user", "Assistant": ASSISTANT}
    return tuple(Turn(roles[name], content.removeprefix(" ")) for name, content in zip(pieces[1::2], pieces[2::2], strict=True))


def as_prompt(value: Any, column: str) -> tuple[Turn, ...]:
    """A prompt as turns: text is the user's turn, a list of texts alternates from the user on, messages say who speaks."""
    if isinstance(value, str):
        return (Turn("user", value),)
    if isinstance(value, list | tuple) and value and all(isinstance(turn, str) for turn in value):
        return tuple(Turn(("user", ASSISTANT)[i % 2], turn) for i, turn in enumerate(value))
    return read_turns(value, column)


EXTRA_ID_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def parse_extra_id(text: str) -> tuple[Turn, ...]:
    """The turns of a HelpSteer2 prompt: the user's first words, then turns after `<extra_id_1>User` and `<extra_id_1>Assistant`.

    A header without words at the end, which only announces the answer, is no turn.
    """
    pieces = EXTRA_ID_TURN.split(f"{text}\n" if text.endswith("<extra_id_1>Assistant") else text)
    roles = {"User": "user", "Assistant": ASSISTANT}
    turns = (Turn("user", pieces[0]), *(Turn(roles[name], content) for name, content in zip(pieces[1::2], pieces[2::2], strict=True)))
    return turns[:-1] if turns[-1] == Turn(ASSISTANT, "") else turns


class SplitPair(NamedTuple):
    """Two conversations, their common start taken out."""

    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    same_prompt: bool
    """False when the two differ before their last turn."""


def split_pair(chosen: tuple[Turn, ...], rejected: tuple[Turn, ...]) -> SplitPair:
    """Prompt: the common leading turns, up to and without the first assistant turn after the last common turn of others.

    Where the conversations differ before their last turn the answers have several turns. Turns after the assistant's
    last are cut from the answers.
    """
    chosen, rejected = trim(chosen), trim(rejected)
    same_prompt = chosen[:-1] == rejected[:-1]
    limit = min(len(chosen), len(rejected))
    common = next((i for i in range(limit) if chosen[i] != rejected[i]), limit)
    if common == len(chosen) == len(rejected):
        common -= 1
    while common and chosen[common - 1].role == ASSISTANT:
        common -= 1
    return SplitPair(chosen[:common], chosen[common:], rejected[common:], same_prompt)


def trim(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns up to the assistant's last; all of them when the assistant says nothing."""
    last = max((i for i, turn in enumerate(turns) if turn.role == ASSISTANT), default=len(turns) - 1)
    return turns[: last + 1]


def split_demonstration(turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """Prompt: everything before the assistant's first turn. Answer: the rest; all of the assistant's turns train."""
    turns = trim(turns)
    first = next((i for i, turn in enumerate(turns) if turn.role == ASSISTANT), len(turns))
    return turns[:first], turns[first:]
