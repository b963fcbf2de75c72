"""Rows as strings: the prompt, and the parts of each answer with what trains and which characters of the answer they hold.

A conversation is rendered by the tokenizer's chat template where it has one (through transformers' own sandboxed renderer),
else as "Human: …\\n\\nAssistant: …"; strings are taken as they are. The prompt is one string for all answers of a row.
"""

from dataclasses import dataclass

from jinja2 import TemplateError

from finegrain.data.answer_text import answer_text, blank, words_of
from finegrain.data.conversations import ASSISTANT, header
from finegrain.data.records import FastTokenizer, Row, Text, Turn

SENTINEL = "[[finegrain {} finegrain]]"


class RenderError(Exception):
    """A conversation its template cannot render so that the assistant's words can be found again."""


@dataclass(frozen=True)
class Part:
    """A piece of an answer that is tokenised by itself."""

    text: str
    start: int | None
    """Where `text[glue:]` begins in the answer's text; None for what does not train."""
    glue: int = 0
    """Leading characters of `text` that are no part of the answer's text (the space after "Assistant:")."""


@dataclass(frozen=True)
class Rendered:
    """A row as strings."""

    prompt: str
    parts: dict[str, list[Part]]
    """By role; where a template ends the answer, its last part does not train and holds that end."""
    texts: dict[str, str]
    """By role, what character spans refer to."""


def render(row: Row, tokenizer: FastTokenizer) -> Rendered:
    """The strings of a row; raises RenderError."""
    if isinstance(row.prompt, str):
        contents = {role: _string(answer.content) for role, answer in row.answers.items()}
        parts = {role: [Part(row.glue + content, 0, len(row.glue))] for role, content in contents.items()}
        return Rendered(row.prompt, parts, contents)
    answers = {role: _turns(answer.content) for role, answer in row.answers.items()}
    texts = {role: answer_text(turns)[0] for role, turns in answers.items()}
    rendered = _template(row.prompt, answers, tokenizer) if tokenizer.chat_template else _plain(row.prompt, answers)
    return Rendered(rendered[0], rendered[1], texts)


def _string(content: Text) -> str:
    assert isinstance(content, str), "a string prompt goes with string answers"
    return content


def _turns(content: Text) -> tuple[Turn, ...]:
    assert not isinstance(content, str), "a conversation's answers are turns"
    return content


def _plain(prompt: tuple[Turn, ...], answers: dict[str, tuple[Turn, ...]]) -> tuple[str, dict[str, list[Part]]]:
    string = "\n\n".join(f"{header(turn.role)} {words_of(turn).text()}" for turn in prompt)
    opened = all(turns and turns[0].role == ASSISTANT for turns in answers.values())
    if opened:
        string += f"{blank(len(prompt))}{header(ASSISTANT)}"
    return string, {role: _plain_parts(turns, len(prompt), opened) for role, turns in answers.items()}


def _plain_parts(turns: tuple[Turn, ...], before: int, opened: bool) -> list[Part]:
    parts, pending = [], ""
    for i, (turn, start) in enumerate(zip(turns, answer_text(turns)[1], strict=True)):
        pending += "" if opened and i == 0 else f"{blank(before + i)}{header(turn.role)}"
        if turn.role != ASSISTANT:
            pending += f" {words_of(turn).text()}"
            continue
        if pending:
            parts.append(Part(pending, None))
        parts.append(Part(f" {words_of(turn).text()}", start, 1))
        pending = ""
    return parts


def _template(prompt: tuple[Turn, ...], answers: dict[str, tuple[Turn, ...]], tokenizer: FastTokenizer) -> tuple[str, dict[str, list[Part]]]:
    opened = all(turns and turns[0].role == ASSISTANT for turns in answers.values())
    string = None if opened else (_apply(prompt, tokenizer) if prompt else "")
    parts: dict[str, list[Part]] = {}
    frames: dict[tuple[Turn, ...], list[str]] = {}
    for role, turns in answers.items():
        hidden = tuple(turn._replace(content=SENTINEL.format(i)) if turn.role == ASSISTANT and turn.content else turn for i, turn in enumerate(turns))
        if hidden not in frames:
            frames[hidden] = _frame(prompt, hidden, tokenizer)
        frame = frames[hidden]
        contents = _contents(_apply(prompt + turns, tokenizer), frame, [turn.content for turn in turns if turn.role == ASSISTANT])
        if string is None:
            string = frame[0]
        if not frame[0].startswith(string) or (opened and frame[0] != string):
            raise RenderError("the chat template renders the prompt differently before different answers")
        starts = [start + len(words_of(turn).opening()) for turn, start in zip(turns, answer_text(turns)[1], strict=True) if turn.role == ASSISTANT]
        parts[role] = [Part(frame[0][len(string) :], None)] if len(frame[0]) > len(string) else []
        for (content, cut), start, after in zip(contents, starts, frame[1:], strict=True):
            parts[role] += [Part(content, start + cut), Part(after, None)]
    assert string is not None
    return string, parts


def _frame(prompt: tuple[Turn, ...], hidden: tuple[Turn, ...], tokenizer: FastTokenizer) -> list[str]:
    """What the template writes before, between and after the assistant's contents."""
    rest, frame = _apply(prompt + hidden, tokenizer), []
    for turn in hidden:
        if turn.role == ASSISTANT:
            before, found, rest = rest.partition(turn.content)
            if not found or turn.content in rest:
                raise RenderError("the chat template does not write the assistant's text once and unchanged")
            frame.append(before)
    return [*frame, rest]


def _contents(rendered: str, frame: list[str], contents: list[str]) -> list[tuple[str, int]]:
    """What the template writes of each content (whole, or stripped), and how many leading characters it cut."""
    for strip in (str, str.strip, str.lstrip, str.rstrip):
        shown = [strip(content) for content in contents]
        if rendered == frame[0] + "".join(content + after for content, after in zip(shown, frame[1:], strict=True)):
            return [(text, content.find(text)) for text, content in zip(shown, contents, strict=True)]
    raise RenderError("the chat template changes the assistant's text beyond stripping white space")


def _apply(turns: tuple[Turn, ...], tokenizer: FastTokenizer) -> str:
    try:
        return str(tokenizer.apply_chat_template([turn.message() for turn in turns], tokenize=False))
    except TemplateError as error:
        raise RenderError(f"the chat template refuses the conversation: {error}") from error
