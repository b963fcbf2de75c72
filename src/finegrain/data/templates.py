"""Conversations as strings, through a tokenizer's chat template and transformers' own sandboxed renderer.

A template is a foreign program: any failure in it becomes a RenderError with its message, and it may run for at most a few
seconds.
"""

import copy
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from jinja2 import Environment, TemplateError

from finegrain.data.records import FastTokenizer, Turn
from finegrain.data.time_limit import TimeLimit
from finegrain.types import Json

SECONDS = 5.0
"""Time limit for one conversation; common templates take a thousandth of it."""
PATIENCE = 2
"""Number of conversations that may exceed the limit before the template is no longer used."""
WORDS = 300
"""Characters kept of a template's error message."""

FAILURES = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a template can raise; names and syntax errors too, because Jinja compiles it to Python."""


class RenderError(Exception):
    """A template cannot render a conversation such that the assistant's text can be found again; the row is dropped as `kind`."""

    def __init__(self, words: str, kind: str = "template") -> None:
        super().__init__(words)
        self.kind = kind


class ChatTemplate:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: FastTokenizer) -> None:
        self._tokenizer = tokenizer
        self._limit = TimeLimit(SECONDS)
        self._late = 0
        named = tokenizer.chat_template
        texts = [named] if isinstance(named, str) else list(named.values()) if isinstance(named, dict) else []
        self._refused = "it computes a power, which may never finish" if any(map(_computes_power, texts)) else ""

    def __call__(self, turns: Sequence[Turn], tools: str = "", *, generation: bool = False) -> str:
        """The conversation as a string, followed by the opening of the assistant's turn if `generation`."""
        messages = [turn.message() for turn in turns]
        try:
            rendered = self._apply(messages, tools, generation)
        except RenderError as error:
            return self._otherwise(messages, tools, generation, error)
        if any(json.dumps(text, ensure_ascii=False) in rendered for text in _arguments_as_text(messages)):
            return self._apply(_with_arguments(messages, as_text=False), tools, generation)
        return rendered

    def _otherwise(self, messages: list[Json], tools: str, generation: bool, error: RenderError) -> str:
        """The conversation in forms that other templates need: text in place of null content, arguments of calls as text or as objects."""
        filled = [{**message, "content": "" if message["content"] is None else message["content"]} for message in messages]
        tried = [messages]
        for other in (filled, *(_with_arguments(filled, as_text=form) for form in (True, False))):
            if other not in tried:
                tried.append(other)
                try:
                    return self._apply(other, tools, generation)
                except RenderError as again:
                    error = again if other is filled else error
        raise error

    def _apply(self, messages: list[Json], tools: str, generation: bool) -> str:
        if self._refused:
            raise RenderError(f"the chat template is not run: {self._refused}")
        if self._late >= PATIENCE:
            raise RenderError(f"the chat template took longer than {SECONDS:g} seconds on {self._late} conversations and is not tried again")
        apply = lambda: self._tokenizer.apply_chat_template(
            messages, tools=json.loads(tools) if tools else None, tokenize=False, add_generation_prompt=generation
        )
        try:
            return str(self._limit(apply))
        except TimeoutError as error:
            self._late += 1
            raise RenderError(f"the chat template {error} on a conversation") from None
        except TemplateError as error:
            raise RenderError(f"the chat template rejects the conversation: {_words(error)}") from error
        except FAILURES as error:
            raise RenderError(f"the chat template fails on the conversation: {type(error).__name__}: {_words(error)}") from error


def _calls(message: Json) -> list[Json]:
    """The calls of a message, in the form {name, arguments}."""
    listed = message.get("tool_calls")
    calls = [*(listed if isinstance(listed, list) else []), message.get("function_call")]
    said = [call.get("function", call) if isinstance(call, dict) else None for call in calls]
    return [one for one in said if isinstance(one, dict)]


def _arguments_as_text(messages: Sequence[Json]) -> list[str]:
    """Arguments of calls that are the JSON text of an object."""
    texts = [call.get("arguments") for message in messages for call in _calls(message)]
    return [text for text in texts if isinstance(text, str) and isinstance(_parsed(text), dict)]


def _with_arguments(messages: Sequence[Json], *, as_text: bool) -> list[Json]:
    """The messages with arguments of calls as JSON text, or as objects."""
    copies: list[Json] = copy.deepcopy(list(messages))
    for call in (call for message in copies for call in _calls(message)):
        arguments = call.get("arguments")
        if as_text and isinstance(arguments, dict):
            call["arguments"] = json.dumps(arguments, ensure_ascii=False)
        elif not as_text and isinstance(arguments, str):
            call["arguments"] = _parsed(arguments) if isinstance(_parsed(arguments), dict) else arguments
    return copies


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:WORDS]


def _computes_power(template: str) -> bool:
    """Whether a template has the operator ** (excluding keyword arguments of calls): one such step can exceed any time limit."""
    try:
        tokens = [(kind, text) for _, kind, text in Environment().lex(template) if kind != "whitespace"]
    except TemplateError:
        return False
    return any(text == "**" and before not in ("(", ",") for (_, before), (kind, text) in pairwise(tokens) if kind == "operator")
