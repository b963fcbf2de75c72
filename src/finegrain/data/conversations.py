"""Turns of a conversation: reading them from rows, the common start of two conversations, the plain rendering.

The plain rendering is "Human: …\\n\\nAssistant: …", the form of hh-rlhf without its leading blank lines. The text of a
multi-turn answer, which character spans refer to, is its turns in this rendering, whatever template produces the tokens.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from finegrain.data.messages import OTHERS, SPEAKERS
from finegrain.data.records import Turn
from finegrain.errors import DataError

ASSISTANT = "assistant"
NAMES = {"user": "Human", ASSISTANT: "Assistant", "system": "System"}
KNOWN = frozenset(SPEAKERS.values()) | OTHERS
"""Known roles of a conversation; any other role may be a custom name for the assistant."""
SYSTEM_ROLES = ("system", "developer")
OPENING = (*SYSTEM_ROLES, "user")
"""Roles that no answer begins with: an answer that begins with one is the whole conversation."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message that hold its reasoning, in the order in which transformers looks for them."""
CALLS = ("tool_calls", "function_call")
"""Keys of a message that hold its tool calls."""
SPEAKING = (*CALLS, *REASONING, "refusal")
"""Keys that make a content of null well-formed."""
HH_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def format_header(role: str) -> str:
    """What the plain rendering writes before a turn, without the space that follows."""
    return f"{NAMES.get(role, role.capitalize())}:"


def is_conversation(value: object) -> bool:
    """Whether a cell is a list of messages."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(turn, dict) and "role" in turn for turn in value)


def read_turns(value: Any, column: str) -> tuple[Turn, ...]:
    """The turns of a list of messages; every key that holds a value is kept."""
    if not is_conversation(value):
        raise DataError(f"column {column!r}: expected a list of messages {{role, content}}, found {_found(value)}")
    return tuple(_turn(message, column) for message in value)


def _found(value: Any) -> str:
    """Describes what was found in place of messages."""
    if not isinstance(value, list | tuple):
        return type(value).__name__
    odd = next((item for item in value if not (isinstance(item, Mapping) and "role" in item)), None)
    if isinstance(odd, Mapping):
        return f"one with the keys {', '.join(f'{str(name)!r:.40}' for name in list(odd)[:8]) or '(none)'}"
    return f"an item {odd!r:.40}" if value else "an empty list"


def _turn(message: Mapping[str, Any], column: str) -> Turn:
    others = {name: message[name] for name in sorted(message) if name not in ("role", "content") and message[name] is not None}
    content = message.get("content")
    if content is None and any(others.get(name) for name in SPEAKING):
        return Turn(str(message["role"]), "", to_json_text({**others, "content": None}, column))
    return Turn(str(message["role"]), _text(content, message["role"], column), to_json_text(others, column) if others else "")


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


def to_json_text(value: Any, column: str) -> str:
    """A cell as JSON text, for comparison and for templates."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"column {column!r}: expected a value that JSON can represent ({error})") from error


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
    return to_json_text(value, "tools")


def find_answer_turns(value: Any, column: str) -> tuple[Turn, ...]:
    """The turns of a conversation that ends with a turn of the assistant, under any of its known names."""
    turns = read_turns(value, column)
    strangers = [turn.role for turn in turns if turn.role not in KNOWN]
    if strangers and not any(turn.role == ASSISTANT for turn in turns):
        raise DataError(f"column {column!r}: no turn of role {ASSISTANT}; roles found: {_names(turns)}")
    if strangers and turns[-1].role not in KNOWN:
        raise DataError(
            f"column {column!r}: ends with a turn of role {turns[-1].role!r:.40}, not a known name of the {ASSISTANT}; roles found: {_names(turns)}"
        )
    return turns


def _names(turns: tuple[Turn, ...]) -> str:
    """The roles in the order of their first turns, as many as fit on a line."""
    names = list(dict.fromkeys(f"{turn.role:.40}" for turn in turns))
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")


def parse_transcript(text: str, column: str) -> tuple[Turn, ...]:
    """The turns of an hh-rlhf transcript, one leading space of each content stripped."""
    pieces = HH_TURN.split(text)
    if len(pieces) < 3 or pieces[0]:
        raise DataError(f"column {column!r}: expected a transcript that starts with '\\n\\nHuman:', found {text[:40]!r}")
    roles = {"Human": "user", "Assistant": ASSISTANT}
    return tuple(Turn(roles[name], content.removeprefix(" ")) for name, content in zip(pieces[1::2], pieces[2::2], strict=True))


def parse_prompt(text: str) -> tuple[Turn, ...]:
    """Turns without an empty last turn of the assistant; text without headers is the user's turn."""
    found = HH_TURN.match(text)
    turns = parse_transcript(text, "prompt") if found else (Turn("user", text),)
    return turns[:-1] if turns[-1].role == ASSISTANT and not turns[-1].content.strip() else turns


def read_prompt(value: Any, column: str) -> tuple[Turn, ...]:
    """A prompt as turns: text is the user's turn, a list of texts alternates starting with the user, messages name their roles."""
    if isinstance(value, str):
        return (Turn("user", value),)
    if isinstance(value, list | tuple) and value and all(isinstance(turn, str) for turn in value):
        return tuple(Turn(("user", ASSISTANT)[i % 2], turn) for i, turn in enumerate(value))
    return read_turns(value, column)


EXTRA_ID_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def parse_extra_id(text: str) -> tuple[Turn, ...]:
    """The turns of a HelpSteer2 prompt: the user's first text, then turns after `<extra_id_1>User` and `<extra_id_1>Assistant`.

    A header without text at the end only announces the answer and is not a turn.
    """
    pieces = EXTRA_ID_TURN.split(f"{text}\n" if text.endswith("<extra_id_1>Assistant") else text)
    roles = {"User": "user", "Assistant": ASSISTANT}
    turns = (Turn("user", pieces[0]), *(Turn(roles[name], content) for name, content in zip(pieces[1::2], pieces[2::2], strict=True)))
    return turns[:-1] if turns[-1] == Turn(ASSISTANT, "") else turns


class PromptAndAnswers(NamedTuple):
    """A prompt and its answers, some or all of which may have been whole conversations."""

    prompt: tuple[Turn, ...]
    """What precedes every answer, once; the fullest form that the row has."""
    answers: dict[str, tuple[Turn, ...]]
    """What follows the prompt; where `agrees` is false, each is a conversation from its own beginning."""
    agrees: bool
    """Whether every whole conversation begins with the prompt, ignoring white space."""


def join_prompt_and_answers(prompt: tuple[Turn, ...], answers: dict[str, tuple[Turn, ...]]) -> PromptAndAnswers:
    """The prompt and what follows it. An answer that begins with a system or user turn is the whole conversation.

    A system turn that only the prompt or only the conversation has is part of the prompt. Where a conversation begins differently
    from the prompt, the conversation is used alone. An empty prompt beside a whole conversation is ignored.
    """
    if any(map(is_whole_conversation, answers.values())) and not any(turn.content.strip() for turn in _systems(prompt)[1]):
        prompt = _systems(prompt)[0]
    heads = {role: _head(prompt, turns) for role, turns in answers.items() if _is_whole(prompt, turns)}
    found = {role: head for role, head in heads.items() if head is not None}
    shared = max((head.turns for head in found.values()), key=len, default=prompt)
    if len(found) < len(heads) or not all(same_turns(head.turns, shared[len(shared) - len(head.turns) :]) for head in found.values()):
        return PromptAndAnswers(prompt, {role: turns if role in heads else prompt + turns for role, turns in answers.items()}, agrees=False)
    return PromptAndAnswers(shared, {role: turns[found[role].length :] if role in found else turns for role, turns in answers.items()}, agrees=True)


def is_whole_conversation(turns: tuple[Turn, ...]) -> bool:
    """Whether an answer begins the way only a whole conversation does."""
    return bool(turns) and turns[0].role in OPENING


class _Head(NamedTuple):
    """The prompt as it occurs in a whole conversation."""

    turns: tuple[Turn, ...]
    """With the prompt's own system turns where the conversation has none."""
    length: int
    """Number of turns of the conversation that belong to the prompt."""


def _is_whole(prompt: tuple[Turn, ...], turns: tuple[Turn, ...]) -> bool:
    return is_whole_conversation(turns) or (len(turns) > len(prompt) > 0 and same_turns(turns[: len(prompt)], prompt))


def _head(prompt: tuple[Turn, ...], turns: tuple[Turn, ...]) -> _Head | None:
    """The beginning of a conversation where it is the prompt; None where it differs."""
    systems, asked = _systems(prompt)
    own_systems, said = _systems(turns)
    length = len(asked)
    if not same_turns(said[:length], asked) or (systems and own_systems and not same_turns(systems, own_systems)):
        return None
    return _Head((own_systems or systems) + said[:length], len(own_systems) + length)


def _systems(turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """The leading system turns, and the others."""
    count = next((i for i, turn in enumerate(turns) if turn.role not in SYSTEM_ROLES), len(turns))
    return turns[:count], turns[count:]


def same_turns(one: tuple[Turn, ...], other: tuple[Turn, ...]) -> bool:
    """Whether turns are equal, ignoring white space."""
    return len(one) == len(other) and all(a.role == b.role and a.content.split() == b.content.split() for a, b in zip(one, other, strict=True))


class SplitPair(NamedTuple):
    """Two conversations without their common start."""

    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    same_prompt: bool
    """False when the two differ before their last turn."""


def split_pair(chosen: tuple[Turn, ...], rejected: tuple[Turn, ...], given: int = 0) -> SplitPair:
    """Prompt: the common leading turns, up to and excluding the first assistant turn after the last common turn of another role.

    The first `given` turns are always part of the prompt: assistant turns at their end do not train. Where the
    conversations differ before their last turn, the answers have several turns. Turns after the assistant's last one are cut
    from the answers.
    """
    chosen, rejected = trim(chosen), trim(rejected)
    same_prompt = chosen[:-1] == rejected[:-1]
    limit = min(len(chosen), len(rejected))
    common = next((i for i in range(limit) if chosen[i] != rejected[i]), limit)
    if common == len(chosen) == len(rejected):
        common -= 1
    while common > given and chosen[common - 1].role == ASSISTANT:
        common -= 1
    common = max(common, given)
    return SplitPair(chosen[:common], chosen[common:], rejected[common:], same_prompt)


def trim(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns up to the assistant's last one; all of them when the assistant has none."""
    last = max((i for i, turn in enumerate(turns) if turn.role == ASSISTANT), default=len(turns) - 1)
    return turns[: last + 1]


def split_demonstration(turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """Prompt: everything before the assistant's first turn. Answer: the rest; all of the assistant's turns train."""
    turns = trim(turns)
    first = next((i for i, turn in enumerate(turns) if turn.role == ASSISTANT), len(turns))
    return turns[:first], turns[first:]
