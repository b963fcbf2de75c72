"""`--task spans`: good and bad passages of every answer, quoted by the server and located here."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from finegrain.data.annotations import Mark, place_marks
from finegrain.data.records import Row
from finegrain.recipes.annotation.replies import TEXT, UnusableReply, list_schema, object_schema, take_choice, take_objects, take_reason, take_text
from finegrain.recipes.annotation.rows import (
    PAIR,
    Annotator,
    CheckedReply,
    Inquiry,
    Note,
    show_prompt,
    shown_answer,
    write_answer,
    write_spans,
    write_start,
)
from finegrain.types import CharSpan, Json

VALUES = {"good": 1.0, "bad": -1.0}
LONGEST_ASPECT = 40
FREE = "a word or two of your own for what the passage is good or bad at, such as factuality or style"


class FoundSpans(NamedTuple):
    """The passages of one answer, with a reason for each."""

    spans: tuple[CharSpan, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class SpanTask:
    """Marks passages; `aspects`: the allowed ones, empty for any."""

    aspects: tuple[str, ...] = ()

    places = ("prompt", "answer", "aspects")
    needed = ("answer",)
    unanswered = "not annotated"

    @property
    def schema(self) -> Json:
        """Of a reply."""
        aspect: Json = {"type": "string", "enum": list(self.aspects)} if self.aspects else TEXT
        judgement: Json = {"type": "string", "enum": list(VALUES)}
        return object_schema(spans=list_schema(object_schema(quote=TEXT, reason=TEXT, aspect=aspect, judgement=judgement)))

    def inquire(self, row: Row) -> list[Inquiry]:
        """A question for each answer."""
        aspects = f"one of {', '.join(self.aspects)}" if self.aspects else FREE
        texts = {role: shown_answer(row, role) for role in row.answers}
        return [Inquiry({"prompt": show_prompt(row), "answer": text, "aspects": aspects}, partial(self.read, text)) for text in texts.values()]

    def read(self, text: str, reply: Json) -> CheckedReply:
        """The spans whose words stand in the text; the others are notes, and a reply of such spans alone is unusable."""
        found: dict[CharSpan, str] = {}
        notes: list[Note] = []
        for one in take_objects(reply, "spans"):
            quote = take_text(one, "quote", len(text) + 1000)
            aspect = " ".join(take_text(one, "aspect").split())
            value = VALUES[take_choice(one, "judgement", tuple(VALUES))]
            if (self.aspects and aspect not in self.aspects) or len(aspect) > LONGEST_ASPECT or not aspect.isprintable():
                notes.append(("unknown_aspect", f"{aspect!r:.60} is not an aspect that was asked for"))
                continue
            if not quote.strip():
                notes.append(("span_not_found", "a quote is empty"))
                continue
            placed = place_marks([Mark(None, None, value, aspect=aspect, quote=quote)], text)
            notes += placed.notes
            found |= {span: take_reason(one) for span in placed.spans}
        if notes and not found:
            raise UnusableReply(notes[0][0], notes[0][1])
        spans = sorted(found)
        return CheckedReply(FoundSpans(tuple(spans), tuple(found[span] for span in spans)), tuple(notes))

    def write(self, row: Row, found: Sequence[FoundSpans | None], by: Annotator) -> list[Json]:
        """A pair as a pair, every other answer as a row of its own."""
        own = dict(zip(row.answers, found, strict=True))
        if tuple(row.answers) == PAIR:
            line = write_start(row) | {role: write_answer(row, role) for role in PAIR}
            for role, one in own.items():
                line |= write_spans(row, role, f"{role}_spans", None if one is None else one.spans, by)
            return [line | row.columns | _tail(by, own)]
        return [
            write_start(row)
            | {"completion": write_answer(row, role)}
            | write_spans(row, role, "spans", None if one is None else one.spans, by)
            | row.columns
            | _tail(by, {role: one})
            for role, one in own.items()
        ]

    def summarise(self, lines: Sequence[Json]) -> Json:
        """Answers annotated, and the spans of good and bad passages."""
        counted = [line["annotation"]["spans"] for line in lines]
        return {name: sum(one[name] for one in counted) for name in ("annotated", *VALUES)}


def _tail(by: Annotator, own: dict[str, FoundSpans | None]) -> Json:
    looked = {role: one for role, one in own.items() if one is not None}
    counts = {name: sum(span.value == value for one in looked.values() for span in one.spans) for name, value in VALUES.items()}
    reasons = {role: list(one.reasons) for role, one in looked.items()}
    return {"annotator": by.name, "annotation": by.record | {"spans": {"annotated": len(looked), **counts}, "reasons": reasons}}
