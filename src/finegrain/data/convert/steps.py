"""Answers in steps that people or programs labelled: each labelled step is a span, 1 right, 0 neutral, -1 wrong.

`settle_neutral` decides how neutral steps count. An unlabelled step has no span; the columns `steps` and `unlabelled_steps` count them.
Steps are joined by a line break [choice].
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

from finegrain.data.columns import read_list, read_text
from finegrain.data.conversations import read_prompt
from finegrain.data.convert.build import Prompt, make_single, replace_answers
from finegrain.data.left_out import LeftOut, Made
from finegrain.data.reading import Reading
from finegrain.data.records import Row, Turn
from finegrain.errors import DataError
from finegrain.types import CharSpan, Json

JOIN = "\n"
RIGHT, WRONG = 1.0, -1.0
MARKER = "ки"
FIRST_STEP = re.compile(r"\bStep 1:")

Step = tuple[str, float | None]
"""Text and label; None: not labelled."""

NEUTRAL: Mapping[str, float | None] = {"wrong": WRONG, "right": RIGHT, "ignore": None}
"""How a neutral step counts; None: no span, it does not count."""


def settle_neutral(row: Row, neutral: str) -> Row:
    """The row without neutral steps, with a note where it had one."""
    answer, label = row.answers["answer"], NEUTRAL[neutral]
    spans = answer.spans or []
    if all(span.value != 0 for span in spans):
        return row
    counted = [span if span.value != 0 or label is None else span._replace(value=label) for span in spans if span.value != 0 or label is not None]
    return replace(row, answers={"answer": replace(answer, spans=counted)}, notes=(*row.notes, "neutral_step"))


def add_label(row: Row) -> list[Made]:
    """Label 1 where every step is right, 0 where one is wrong; left out where unlabelled steps, or no step that counts, leave it open."""
    values = [span.value for span in row.answers["answer"].spans or ()]
    if WRONG in values:
        label = 0.0
    elif RIGHT in values and row.columns["unlabelled_steps"] == 0:
        label = 1.0
    else:
        return [LeftOut.UNDECIDED_STEPS]
    return [replace_answers(row, row.answers, {**row.columns, "label": label})]


def stepwise(row: Reading) -> list[Row]:
    """{prompt, completions: [step], labels: [1, 0, -1, true, false or null]}; false is wrong."""
    texts, labels = read_list(row, "completions", str), row["labels"]
    if not isinstance(labels, list) or len(labels) != len(texts):
        raise DataError(f"column 'labels': expected one label for each of {len(texts)} steps, found {labels!r}")
    steps = [(text, WRONG if label is False else _label(label)) for text, label in zip(texts, labels, strict=True)]
    return [_joined(read_prompt(row["prompt"], "prompt"), steps)]


def first_error(row: Reading) -> list[Row]:
    """{prompt, completions: [step], first_error: index or null}: right before it, wrong at it, not labelled after it; null: all are right."""
    texts, first = read_list(row, "completions", str), row["first_error"]
    if first is not None and not (isinstance(first, int) and not isinstance(first, bool) and 0 <= first < len(texts)):
        raise DataError(f"column 'first_error': expected null or the number from 0 of one of {len(texts)} steps, found {first!r:.80}")
    wrong = len(texts) if first is None else first
    steps = [(text, RIGHT if number < wrong else WRONG if number == wrong else None) for number, text in enumerate(texts)]
    return [_joined(read_prompt(row["prompt"], "prompt"), steps)]


def prm800k(row: Reading) -> list[Made]:
    """One trajectory, or one for each alternative of the last step where the labeller chose none.

    Quality-control and screening questions, bad problems, and rows without labelled steps are left out.
    """
    label = row["label"]
    if row.get("is_quality_control_question"):
        return [LeftOut.QUALITY_CONTROL]
    if row.get("is_initial_screening_question"):
        return [LeftOut.SCREENING]
    if label.get("finish_reason") == "bad_problem":
        return [LeftOut.BAD_PROBLEM]
    prompt = (Turn("user", read_text(row["question"], "problem")),)
    return [_joined(prompt, steps) if steps else LeftOut.NO_STEPS for steps in _trajectories(label["steps"])]


def _trajectories(steps: Sequence[Json]) -> list[list[Step]]:
    done: list[Step] = []
    for step in steps:
        completions = step.get("completions") or []
        chosen, human = step.get("chosen_completion"), step.get("human_completion")
        if chosen is not None and completions:
            done.append(_completion(completions[chosen]))
        elif human is not None:
            done.append(_human(human))
        elif completions:
            return [[*done, _completion(completion)] for completion in completions]
    return [done]


def _completion(completion: Json) -> Step:
    return read_text(completion, "text"), _label(completion.get("rating"))


def _human(written: Any) -> Step:
    """A step that the labeller wrote counts as right [choice] unless it has a rating; an object with text, or plain text."""
    if isinstance(written, str):
        return written, RIGHT
    return read_text(written, "text"), RIGHT if written.get("rating") is None else _label(written["rating"])


def _label(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Real) or float(value) not in (-1.0, 0.0, 1.0):
        raise DataError(f"label of a step: expected 1, 0, -1 or null, found {value!r}")
    return float(value)


def _joined(prompt: Prompt, steps: Sequence[Step]) -> Row:
    places, start = [], 0
    for text, label in steps:
        places.append((start, start + len(text), label))
        start += len(text) + len(JOIN)
    return _marked(prompt, JOIN.join(text for text, _ in steps), places)


def _marked(prompt: Prompt, text: str, places: Sequence[tuple[int, int, float | None]]) -> Row:
    spans = [CharSpan(start, end, label) for start, end, label in places if label is not None]
    return make_single(prompt, text, {"steps": float(len(places)), "unlabelled_steps": float(len(places) - len(spans))}, spans)


def math_shepherd(row: Reading) -> list[Row]:
    """Steps end with the marker "ки" in `input` and with + or - at the same place in `label`; the prompt is the text before "Step 1:"."""
    marked = read_text(row, "input")
    pieces, tail = (parts := marked.split(MARKER))[:-1], parts[-1]
    labels = _signs(pieces, tail, read_text(row, "label"))
    text = "".join(pieces)
    begin = FIRST_STEP.search(text)
    if begin is None or not pieces or begin.start() >= len(pieces[0]):
        raise DataError(f"column 'input': expected a problem, then 'Step 1:' before the first {MARKER!r}, found {marked[:60]!r}")
    places, start, offset = [], begin.start(), 0
    for piece, label in zip(pieces, labels, strict=True):
        offset += len(piece)
        step = text[start:offset]
        first = start + len(step) - len(step.lstrip())
        places.append((first - begin.start(), start + len(step.rstrip()) - begin.start(), label))
        start = offset
    return [_marked((Turn("user", text[: begin.start()].rstrip()),), text[begin.start() :].rstrip(), places)]


def _signs(pieces: Sequence[str], tail: str, label: str) -> list[float]:
    """The sign in `label` at the place where each piece of `input` ends."""
    signs: list[float] = []
    place = 0
    for piece in pieces:
        place += len(piece) + 1
        sign = label[place - 1 : place]
        if label[place - 1 - len(piece) : place - 1] != piece or sign not in ("+", "-"):
            raise DataError(f"column 'label': expected the text of input with + or - for each {MARKER!r}; step {len(signs) + 1} has {sign!r}")
        signs.append(RIGHT if sign == "+" else WRONG)
    if label[place:].strip() != tail.strip():
        raise DataError(f"column 'label': expected the text of input with + or - for each {MARKER!r}; it ends with {label[place:]!r:.60}")
    return signs
