"""Examined rows: the content of pairs.jsonl for one prompt and its answers, token by token, before and after training."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finegrain.errors import CheckpointError
from finegrain.types import CharSpan, Json

FILE = "pairs.jsonl"
PROMPT_CHARACTERS = 1500
"""Of a longer prompt the end is kept: the part next to the answer."""
SIGNALS = ("before", "after", "weight", "reward", "reward_std", "pull")
IN_NATS = ("before", "after", "weight")
"""Number of decimals; rewards have their own units and keep significant digits."""


@dataclass(frozen=True, kw_only=True)
class ExaminedAnswer:
    """One answer; arrays are (T,), one value per token."""

    text: str
    offsets: np.ndarray
    """(T, 2) characters start..end-1 of `text`; equal for a token without characters."""
    mask: np.ndarray
    """True on tokens that train."""
    before: np.ndarray | None = None
    """Log-probability under the reference (the model before training), nats; meaningless where `mask` is False."""
    after: np.ndarray | None = None
    """Log-probability after training, nats."""
    weight: np.ndarray | None = None
    """Credit that multiplied the token's log-ratio."""
    reward: np.ndarray | None = None
    """A scorer's token reward, in its units."""
    reward_std: np.ndarray | None = None
    """Its standard deviation, where the scorer has one."""
    pull: np.ndarray | None = None
    """Its signed share of the row's gradient by logits before the first step, as `train.pull.token_pulls` has it."""
    segment: np.ndarray | None = None
    """Number of the segment or step that a reward model reads, -1 outside."""
    score: float | None = None
    """A reward model's score of the whole answer."""
    score_std: float | None = None
    """Its standard deviation; None: unknown."""
    spans: tuple[CharSpan, ...] | None = None
    """Annotators' marks; None: not annotated."""
    annotators: tuple[str, ...] = ()
    """Everybody who looked at the answer, where the data name them."""
    truth: tuple[CharSpan, ...] | None = None
    """Planted truth, where the data have it."""

    @property
    def ratio(self) -> np.ndarray | None:
        """after - before, 0 outside the mask."""
        return None if self.before is None or self.after is None else np.where(self.mask, self.after - self.before, 0.0)

    @property
    def segment_score(self) -> np.ndarray | None:
        """At every token the score of its segment, which is read at the segment's last token; NaN outside segments."""
        if self.segment is None or self.reward is None:
            return None
        ends = {int(number): place for place, number in enumerate(self.segment) if number >= 0 and self.mask[place]}
        return np.array([self.reward[ends[int(number)]] if int(number) in ends else np.nan for number in self.segment])

    def total(self, name: str) -> float:
        """Sum of a signal (or `ratio`) over the tokens that train; NaN where it is absent."""
        values = getattr(self, name)
        return float("nan") if values is None else float(values[self.mask].sum(dtype=np.float64))


@dataclass(frozen=True, kw_only=True)
class ExaminedPair:
    """One row of the data with its answers by role."""

    row: int
    """Row number in the source."""
    held_out: bool
    prompt: str
    answers: dict[str, ExaminedAnswer]
    label: float | None = None
    """1 good, 0 bad, for rows with a single answer."""
    tie: bool = False
    """The labels rate both answers as equally good."""

    def change(self, role: str) -> float:
        """After minus before of one answer, nats; NaN where unknown."""
        return self.answers[role].total("ratio") if role in self.answers else float("nan")

    @property
    def margin(self) -> float:
        """How much more the chosen answer's log-probability rose than the rejected one's, nats; NaN where unknown."""
        return self.change("chosen") - self.change("rejected")

    @property
    def reward_margin(self) -> float:
        """A reward model's score of the chosen answer minus that of the rejected one; NaN where unknown."""
        scores = [self.answers[role].score if role in self.answers else None for role in ("chosen", "rejected")]
        return float("nan") if scores[0] is None or scores[1] is None else scores[0] - scores[1]

    @property
    def reward_margin_std(self) -> float:
        """Standard deviation of that difference, with the errors of the two scores taken as independent; NaN where unknown."""
        stds = [self.answers[role].score_std if role in self.answers else None for role in ("chosen", "rejected")]
        return float("nan") if stds[0] is None or stds[1] is None else float(np.hypot(stds[0], stds[1]))

    def as_json(self) -> Json:
        """One line of pairs.jsonl."""
        label: Json = {} if self.label is None else {"label": self.label}
        if self.tie:
            label["tie"] = 1
        answers = {role: _answer_json(answer) for role, answer in self.answers.items()}
        return {"row": self.row, "held_out": self.held_out, "prompt": self.prompt, **label, "answers": answers}


def shorten_prompt(prompt: str) -> str:
    """The end of a long prompt, marked as cut."""
    return prompt if len(prompt) <= PROMPT_CHARACTERS else "[…] " + prompt[-PROMPT_CHARACTERS:]


def read_pairs(folder: Path) -> list[ExaminedPair] | None:
    """Examined rows of a run directory; None where it has none."""
    file = folder / FILE
    return list(_lines(file)) if file.exists() else None


def _lines(file: Path) -> Iterator[ExaminedPair]:
    with file.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield pair_from_json(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(
                    f"{file}:{number} is not an examined pair ({type(error).__name__}: {error}); remove the file for a report without pairs"
                ) from error


def pair_from_json(line: Json) -> ExaminedPair:
    """The pair written by `as_json`."""
    answers = {str(role): _answer(answer) for role, answer in line["answers"].items()}
    label = line.get("label")
    return ExaminedPair(
        row=int(line["row"]),
        held_out=bool(line["held_out"]),
        prompt=str(line["prompt"]),
        answers=answers,
        label=None if label is None else float(label),
        tie=bool(line.get("tie")),
    )


def _answer_json(answer: ExaminedAnswer) -> Json:
    found: Json = {"text": answer.text, "offsets": answer.offsets.ravel().tolist(), "mask": "".join("1" if on else "0" for on in answer.mask)}
    for name in SIGNALS:
        values = getattr(answer, name)
        if values is not None:
            found[name] = [float(f"{value:.4f}" if name in IN_NATS else f"{value:.4g}") for value in values.tolist()]
    for name in ("score", "score_std"):
        value = getattr(answer, name)
        if value is not None:
            found[name] = float(f"{value:.6g}")
    if answer.segment is not None:
        found["segment"] = [int(number) for number in answer.segment]
    for name in ("spans", "truth"):
        marks = getattr(answer, name)
        if marks is not None:
            found[name] = [span_as_json(mark) for mark in marks]
    if answer.annotators:
        found["annotators"] = list(answer.annotators)
    return found


def _answer(line: Json) -> ExaminedAnswer:
    mask = np.array([sign == "1" for sign in line["mask"]], dtype=bool)
    signals = {name: _values(line.get(name), len(mask), name) for name in SIGNALS}
    offsets = np.array(line["offsets"], dtype=np.int64).reshape(-1, 2)
    if len(offsets) != len(mask):
        raise ValueError(f"{len(offsets)} offsets for {len(mask)} tokens")
    segment = _values(line.get("segment"), len(mask), "segment")
    return ExaminedAnswer(
        text=str(line["text"]),
        offsets=offsets,
        mask=mask,
        spans=_marks(line.get("spans")),
        truth=_marks(line.get("truth")),
        annotators=tuple(map(str, line.get("annotators", ()))),
        segment=None if segment is None else segment.astype(np.int64),
        score=_number(line.get("score")),
        score_std=_number(line.get("score_std")),
        **signals,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _values(values: Sequence[float] | Sequence[int] | None, tokens: int, name: str) -> np.ndarray | None:
    if values is None:
        return None
    if len(values) != tokens:
        raise ValueError(f"{len(values)} values of {name} for {tokens} tokens")
    return np.array(values, dtype=np.float64)


def _marks(marks: Any) -> tuple[CharSpan, ...] | None:
    return None if marks is None else tuple(map(span_from_json, marks))


def span_as_json(span: CharSpan) -> Json | list[Any]:
    """[start, end, value], or an object with those and what else the span says."""
    if span[3:] == (None, "", ""):
        return list(span[:3])
    return {name: value for name, value in span._asdict().items() if value not in (None, "")}


def span_from_json(mark: Any) -> CharSpan:
    """The span written by `span_as_json`."""
    if not isinstance(mark, dict):
        start, end, value = mark
        return CharSpan(int(start), int(end), float(value))
    std = mark.get("std")
    place = CharSpan(int(mark["start"]), int(mark["end"]), float(mark["value"]), None if std is None else float(std))
    return place._replace(aspect=str(mark.get("aspect", "")), annotator=str(mark.get("annotator", "")))
