"""A server's reply as checked values: any text may come, and what does not have the form that was asked for is an UnusableReply."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from finegrain.data.text_file import is_utf8
from finegrain.types import Json

FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)
"""JSON as a block of code."""
END_OF_THOUGHT = re.compile(r"</think>\s*(?=\{|```)")
"""Where JSON begins after a thought. Templates may open the thought themselves, so that its first tag is missing; it may name its tags."""
MOST_ITEMS = 200
"""Of a list in a reply."""
MOST_WORDS = 2000
"""Characters of a reason."""


class UnusableReply(Exception):
    """A reply that cannot be used; its words are sent back with the next try."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


def parse_reply(text: str) -> Json:
    """The JSON object of a reply: alone, in a block of code, or after a thought that ends with </think>."""
    if not is_utf8(text):
        raise UnusableReply("invalid_text", "it has half a surrogate pair, which is not valid text")
    if not text.lstrip().startswith(("{", "```")) and (thought := END_OF_THOUGHT.search(text)):
        text = text[thought.end() :]
    fenced = FENCE.fullmatch(text)
    try:
        found = json.loads(fenced[1] if fenced else text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise UnusableReply("not_json", "it is not JSON alone") from None
    if not isinstance(found, dict):
        raise UnusableReply("wrong_form", "it is not a JSON object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def take_text(reply: Mapping[str, Any], name: str, most: int = MOST_WORDS) -> str:
    """A text of at most so many characters; a JSON escape may still have made it invalid."""
    value = reply.get(name)
    if not isinstance(value, str):
        raise UnusableReply("wrong_form", f'"{name}" is not a text')
    if len(value) > most:
        raise UnusableReply("wrong_form", f'"{name}" has more than {most} characters')
    if not is_utf8(value):
        raise UnusableReply("invalid_text", f'"{name}" has half a surrogate pair, which is not valid text')
    return value


def take_reason(reply: Mapping[str, Any]) -> str:
    """The reason on one line, empty where none is given: nothing depends on it."""
    value = reply.get("reason")
    return " ".join(value[:MOST_WORDS].split()) if isinstance(value, str) and is_utf8(value) else ""


def take_choice(reply: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
    """One of the words."""
    value = reply.get(name)
    if not isinstance(value, str) or value not in choices:
        raise UnusableReply("wrong_form", f'"{name}" is not one of {", ".join(choices)}')
    return value


def take_whole(reply: Mapping[str, Any], name: str, most: int) -> int:
    """A whole number from 1 to `most`."""
    value = reply.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 1 <= value <= most:
        raise UnusableReply("wrong_form", f'"{name}" is not a whole number from 1 to {most}')
    return value


def take_objects(reply: Mapping[str, Any], name: str) -> list[Json]:
    """A list of at most MOST_ITEMS objects."""
    value = reply.get(name)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise UnusableReply("wrong_form", f'"{name}" is not a list of objects')
    if len(value) > MOST_ITEMS:
        raise UnusableReply("wrong_form", f'"{name}" has more than {MOST_ITEMS} items')
    return value


def object_schema(**properties: Json) -> Json:
    """JSON Schema of an object with these properties and no others."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def list_schema(item: Json) -> Json:
    """JSON Schema of a list."""
    return {"type": "array", "items": item}


TEXT: Json = {"type": "string"}
"""JSON Schema of a text."""
