"""Turns of a conversation: reading them from rows, the common start of two conversations, the plain rendering.

The plain rendering is "Human: …\\n\\nAssistant: …", the form of hh-rlhf without its leading blank lines. The text of a
multi-turn answer, which character spans refer to, is its turns in this rendering, whatever template makes the tokens.
"""

import re
from typing import Any, NamedTuple

from finegrain.data.records import Turn
from finegrain.errors import DataError

ASSISTANT = "assistant"
NAMES = {"user": "Human", ASSISTANT: "Assistant", "system": "System"}
HH_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def header(role: str) -> str:
    """What the plain rendering writes before a turn, without the space that follows."""
    return f"{NAMES.get(role, role.capitalize())}:"


def is_conversation(value: object) -> bool:
    """Whether a cell is a list of messages."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(turn, dict) and "role" in turn for turn in value)


def read_turns(value: Any, column: str) -> tuple[Turn, ...]:
    """The turns of a list of {role, content} messages."""
    if not is_conversation(value):
        raise DataError(f"column {column!r}: expected a list of messages {{role, content}}, found {type(value).__name__}")
    for turn in value:
        if not isinstance(turn.get("content"), str):
            raise DataError(f"column {column!r}: expected text as content of the {turn['role']} turn, found {type(turn.get('content')).__name__}")
    return tuple(Turn(str(turn["role"]), turn["content"]) for turn in value)


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


def assistant_says(turns: tuple[Turn, ...]) -> bool:
    """Whether the assistant says anything but white space."""
    return any(turn.role == ASSISTANT and turn.content.strip() for turn in turns)
