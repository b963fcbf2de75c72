"""Where a chat template writes each assistant turn of an answer, and which characters of the answer's text are there.

The conversation is rendered twice: unchanged, and with a mark in place of each text of the assistant. What the second
rendering writes around the marks also occurs in the first, so every text is found again, even where the template strips or
moves it; a text whose mark is missing was left out. A turn extends from the end of its header to its end marker, so tool
calls and what the template writes around reasoning belong to it.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

from finegrain.data.answer_text import answer_text, split_turn
from finegrain.data.conversations import ASSISTANT, CALLS, REASONING, to_json_text
from finegrain.data.records import Turn
from finegrain.data.templates import ChatTemplate, RenderError

MARK = "[[finegrain {} finegrain]]"
THINK = re.compile(r"\s*<think>")
END_THINK = "</think>"
OPEN_THINK = re.compile(r"<think>.*\Z", re.DOTALL)
SHORTEST_RUN = 3
"""Minimum run of characters shared by two spellings of a call that counts as the same characters."""
MOST_COMPARED = 1 << 22
"""Two spellings of a call are compared up to this product of their lengths."""

BLANKS = re.compile(r"\s*")

CONTENT, THOUGHT, REASON, CALL = "content", "thought", "reasoning", "call"
"""Kinds of text: content, a thought inside it, reasoning under a separate key, the name of a called tool."""


class TextRun(NamedTuple):
    """Characters `begin`..`end`-1 of a rendering, which are those of the answer's text from `start` on."""

    begin: int
    end: int
    start: int


@dataclass(frozen=True)
class Field:
    """One text of a turn."""

    turn: int
    kind: str
    mark: str
    value: str
    start: int | None
    """Where it begins in the answer's text; None where it is not mapped separately."""


@dataclass(frozen=True)
class Located:
    """One of the assistant's turns in a rendering."""

    turn: int
    begin: int
    """The first character after its header."""
    end: int
    runs: list[TextRun] = field(default_factory=list)
    missing: frozenset[str] = frozenset()
    """Kinds of text that the template leaves out."""
    content: tuple[int, int] | None = None
    """The range of its content, excluding a thought inside it."""


class Habits(NamedTuple):
    """What a template writes around any turn."""

    headers: tuple[str, ...]
    """How the assistant's turn begins, the most likely form first."""
    end: str
    """What ends it; empty where nothing does."""
    specials: tuple[str, ...]
    """The tokenizer's special tokens."""
    reasons: bool
    """Whether reasoning under a separate key is written, at least in the last turn."""


def find_habits(template: ChatTemplate, specials: Sequence[str]) -> Habits:
    """Determined by rendering short conversations; empty for a template that rejects them."""
    marks = [MARK.format(f"probe {i}") for i in range(4)]
    turns = tuple(Turn(("user", ASSISTANT)[i % 2], mark) for i, mark in enumerate(marks))
    try:
        gaps = split_at_marks(template(turns), marks)
        last = split_at_marks(template(turns[:2]), marks[:2])[-1]
        reasons = marks[3] in template((turns[0], turns[1]._replace(more=json.dumps({REASONING[0]: marks[3]}))))
    except RenderError:
        return Habits((), "", tuple(specials), False)
    end = _common_start(gaps[2], last)
    if gaps[2][len(end) : len(end) + 1].isalnum() and last[len(end) : len(end) + 1].isalnum():  # two tokens with a common start
        end = ""
    first = min(((end.find(special), special) for special in specials if special in end), default=(0, end))[1]
    return Habits(_headers(template, turns[0], _common_start(gaps[1], gaps[3])), first, tuple(specials), reasons)


def _headers(template: ChatTemplate, user: Turn, between: str) -> tuple[str, ...]:
    """Its generation prompt, with and without the opening of a thought; else the text between user and assistant."""
    try:
        bare, opened = template((user,)), template((user,), generation=True)
    except RenderError:
        return (between,) if between else ()
    if opened.startswith(bare) and len(opened) > len(bare):
        header = opened[len(bare) :]
        return tuple(dict.fromkeys(one for one in (OPEN_THINK.sub("", header), header) if one))
    return (between,) if between else ()


def split_at_marks(rendered: str, marks: Sequence[str]) -> list[str]:
    """The text before, between and after marks."""
    gaps, rest = [], rendered
    for mark in marks:
        before, found, rest = rest.partition(mark)
        if not found or mark in rest:
            raise RenderError("the chat template does not write the assistant's text once and unchanged")
        gaps.append(before)
    return [*gaps, rest]


def _common_start(one: str, other: str) -> str:
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def hide_texts(turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], list[Field]]:
    """An answer's turns with a mark for each text of the assistant, and those texts."""
    starts = answer_text(turns)[1]
    shown, fields = [], []
    for number, (turn, start) in enumerate(zip(turns, starts, strict=True)):
        if turn.role == ASSISTANT:
            turn, own = _hide(turn, number, start)
            fields += own
        shown.append(turn)
    return tuple(shown), fields


def _hide(turn: Turn, number: int, start: int) -> tuple[Turn, list[Field]]:
    words, others = split_turn(turn), turn.others()
    fields: list[Field] = []

    def mark(kind: str, value: str, place: int | None) -> str:
        fields.append(Field(number, kind, MARK.format(f"{number} {len(fields)}"), value, place))
        return fields[-1].mark

    marks: dict[str, str] = {}
    for name in REASONING:
        if isinstance(value := others.get(name), str) and value.strip():
            others[name] = marks.get(value) or mark(REASON, value, start + len("<think>\n") if value == words.reasoning else None)
            marks[value] = others[name]
    at = start + len(words.opening())
    content = turn.content
    head, tag, visible = content.rpartition(END_THINK)
    opening = THINK.match(head)
    thought = head[opening.end() :] if opening else head
    if tag and thought.strip():
        before, after = len(head) - len(thought), len(head) + len(tag)
        shown = mark(CONTENT, visible, at + after) if visible.strip() else visible
        content = f"{content[:before]}{mark(THOUGHT, thought, at + before)}{tag}{shown}"
    elif content.strip() or not (words.calls or words.reasoning):
        content = mark(CONTENT, content, at)
    for name in CALLS:
        if isinstance(others.get(name), list | dict):
            others[name] = _named(others[name], lambda value: mark(CALL, value, None))
    more = to_json_text(others, "messages") if others else ""
    return Turn(turn.role, content, more), fields


def _named(calls: Any, mark: Any) -> Any:
    """Calls with a mark for each name."""
    if isinstance(calls, list):
        return [_named(call, mark) for call in calls]
    if not isinstance(calls, dict):
        return calls
    if isinstance(calls.get("function"), dict):
        return {**calls, "function": _named(calls["function"], mark)}
    return {**calls, "name": mark(calls["name"])} if isinstance(calls.get("name"), str) and calls["name"].strip() else calls


def locate(rendered: str, shown: str, fields: Sequence[Field], turns: tuple[Turn, ...], habits: Habits, until: Callable[[int], str]) -> list[Located]:
    """The turns of an answer in `rendered`, found by `shown`, the rendering with marks; `until`: the rendering that ends with a turn.

    A turn that the template does not write is omitted.
    """
    for one in fields:
        if one.kind == CALL and shown.count(one.mark) > 1:  # a template may repeat the tool's name beside its result
            before, _, rest = shown.partition(one.mark)
            shown = f"{before}{one.mark}{rest.replace(one.mark, one.value)}"
    order = sorted((one for one in fields if one.mark in shown), key=lambda one: shown.find(one.mark))
    if any(one.turn > other.turn for one, other in pairwise(order)):
        raise RenderError("the chat template writes the turns of the conversation in another order")
    places = _places(rendered, split_at_marks(shown, [one.mark for one in order]), order)
    text, starts = answer_text(turns)
    found: list[Located] = []
    for number in dict.fromkeys(one.turn for one in order):
        own = [(place, one) for place, one in zip(places, order, strict=True) if one.turn == number]
        behind = next((place[0] for place, one in zip(places, order, strict=True) if one.turn > number), len(rendered))
        begin = _behind_header(rendered, found[-1].end if found else 0, own[0][0][0], habits.headers)
        end = own[-1][0][1]
        if own[-1][1].kind != CONTENT or any(one.kind == CALL for _, one in own):  # something is written after its last text
            end = _behind_rest(rendered, end, behind, habits, None if number == len(turns) - 1 else partial(until, number))
        missing = {one.kind for one in fields if one.turn == number and one not in order}
        limits = (starts[number], starts[number] + len(split_turn(turns[number]).text()))
        content = next((place for place, one in own if one.kind == CONTENT), None)
        found.append(Located(number, begin, end, _runs(rendered, text, (begin, end), limits, own), frozenset(missing), content))
    return found


def _places(rendered: str, gaps: Sequence[str], order: Sequence[Field]) -> list[tuple[int, int]]:
    """The range of each text, whole or without white space at its ends, `gaps` being the text around them."""
    places: list[tuple[int, int]] = []
    at = len(gaps[0]) if rendered.startswith(gaps[0]) else _changed()
    for one, after in zip(order, gaps[1:], strict=True):
        begin, core = at, one.value.strip()
        lead = one.value[: len(one.value) - len(one.value.lstrip())]
        if core:
            at = _behind_blanks(rendered, at)
            if not lead.endswith(rendered[begin:at]) or not rendered.startswith(core, at):
                _changed()
            at += len(core)
        blanks = one.value[len(one.value.rstrip()) :] if core else lead
        ends = (at + length for length in range(len(blanks), -1, -1) if rendered.startswith(blanks[:length] + after, at))
        at = next((end for end in ends if one is not order[-1] or end + len(after) == len(rendered)), -1)
        if at < 0:
            _changed()
        places.append((begin, at))
        at += len(after)
    return places


def _behind_blanks(text: str, at: int) -> int:
    found = BLANKS.match(text, at)
    assert found is not None
    return found.end()


def _changed() -> NoReturn:
    raise RenderError(
        "the chat template changes the assistant's text beyond stripping white space; "
        "a removed thought can train only where it occurs once, between <think> and </think>, or with a template that keeps it"
    )


def _behind_header(rendered: str, past: int, first: int, headers: Sequence[str]) -> int:
    """Where the header of a turn ends whose first text begins at `first`; `first` itself where no header is known."""
    for header in headers:
        if (place := rendered.rfind(header, past, first)) >= 0:
            return place + len(header)
    return first


def _behind_rest(rendered: str, end: int, behind: int, habits: Habits, until: Callable[[], str] | None) -> int:
    """Where a turn ends whose last text ends at `end` but that continues with calls or the end of a thought; `until`: None for the last."""
    rest = rendered[end:behind]
    place = -1 if not habits.end else rest.rfind(habits.end) if until is None else rest.find(habits.end)
    if place < 0 and until is not None and rendered.startswith(known := until()) and end <= len(known) <= behind:
        return len(known)
    if place < 0:
        place = min((found for special in habits.specials if (found := rest.find(special)) >= 0), default=-1)
    if place < 0 and until is not None:
        raise RenderError("the chat template writes no end of a turn, so a tool call cannot be separated from the next turn")
    return end + (len(rest.rstrip()) if place < 0 else place)


def _runs(rendered: str, text: str, turn: tuple[int, int], limits: tuple[int, int], own: Sequence[tuple[tuple[int, int], Field]]) -> list[TextRun]:
    """Which characters of a turn represent which of its text, `limits`: the fields exactly, what is between them where it is equal."""
    (at, end), (done, last) = turn, limits
    runs: list[TextRun] = []
    for (begin, stop), one in own:
        if one.start is None:
            continue
        start = one.start + one.value.find(rendered[begin:stop])
        if start < done or begin < at:
            continue
        runs += (TextRun(at + i, at + i + n, done + j) for i, j, n in _alike(rendered[at:begin], text[done:start]))
        if stop > begin:
            runs.append(TextRun(begin, stop, start))
        at, done = stop, start + stop - begin
    runs += (TextRun(at + i, at + i + n, done + j) for i, j, n in _alike(rendered[at:end], text[done:last]))
    return runs


@lru_cache(maxsize=512)
def _alike(shown: str, written: str) -> tuple[tuple[int, int, int], ...]:
    """(position in one, position in the other, length) of the runs that two spellings of the same thing share, in order."""
    if not shown or not written:
        return ()
    if shown == written:
        return ((0, 0, len(shown)),)
    if len(shown) * len(written) > MOST_COMPARED:
        length = len(_common_start(shown, written))
        return ((0, 0, length),) if length else ()
    blocks = SequenceMatcher(None, shown, written, autojunk=False).get_matching_blocks()
    return tuple((one.a, one.b, one.size) for one in blocks if one.size >= SHORTEST_RUN)
