"""`--task edits`: a least edit of an answer as replacements of quoted passages; the result is a correction.

Source: minimal editing by a stronger model: https://arxiv.org/abs/2406.02756, https://arxiv.org/abs/2311.04072; the prompt is our own [OURS].
Deviations: the server names replacements and does not write the answer again, so what it does not name cannot change [OURS].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from finegrain.data.records import Row
from finegrain.data.relocate import find_passage
from finegrain.recipes.annotation.replies import TEXT, UnusableReply, list_schema, object_schema, take_objects, take_reason, take_text
from finegrain.recipes.annotation.rows import PAIR, Annotator, CheckedReply, Inquiry, keep_spans, plain_answer, show_prompt, write_start
from finegrain.types import Json

LONGEST_REPLACEMENT = 20_000


class CorrectedAnswer(NamedTuple):
    """An answer after its edits."""

    text: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class EditTask:
    """Corrects answers, of pairs the rejected one; `most_changed`: share of the words that an edit may change."""

    most_changed: float = 0.5

    places = ("prompt", "answer")
    needed = ("answer",)
    unanswered = "not corrected"

    @property
    def schema(self) -> Json:
        """Of a reply."""
        return object_schema(edits=list_schema(object_schema(quote=TEXT, replacement=TEXT, reason=TEXT)))

    def inquire(self, row: Row) -> list[Inquiry]:
        """A question for each answer that is corrected."""
        texts = [plain_answer(row.answers[role].content) for role in _corrected_roles(row)]
        return [Inquiry({"prompt": show_prompt(row), "answer": text}, partial(self.read, text)) for text in texts]

    def read(self, text: str, reply: Json) -> CheckedReply:
        """The corrected text, all edits or none: one that cannot be placed makes the reply unusable."""
        edits: list[tuple[int, int, str]] = []
        reasons: list[str] = []
        for one in take_objects(reply, "edits"):
            quote, replacement = take_text(one, "quote", len(text) + 1000), take_text(one, "replacement", LONGEST_REPLACEMENT)
            found = find_passage(text, None, None, quote) if quote else None
            if found is None:
                raise UnusableReply("edit_not_found", f"{quote!r:.60} is not in the answer")
            if found.others:
                raise UnusableReply("edit_ambiguous", f"{quote!r:.60} stands {found.others + 1} times in the answer; quote more words")
            if text[found.start : found.end] != replacement:
                edits.append((found.start, found.end, replacement))
                reasons.append(take_reason(one))
        edits.sort()
        if any(first[1] > second[0] for first, second in pairwise(edits)):
            raise UnusableReply("edits_overlap", "two edits change the same words")
        corrected = text
        for start, end, replacement in reversed(edits):
            corrected = corrected[:start] + replacement + corrected[end:]
        if not corrected.strip():
            raise UnusableReply("empty_correction", "nothing is left of the answer")
        changed = Levenshtein.normalized_distance(text.split(), corrected.split())
        if changed > self.most_changed:
            raise UnusableReply("rewritten", f"{changed:.0%} of the words are changed, more than {self.most_changed:.0%}; change only what is needed")
        return CheckedReply(CorrectedAnswer(corrected, tuple(reasons)))

    def write(self, row: Row, found: Sequence[CorrectedAnswer | None], by: Annotator) -> list[Json]:
        """Corrections; null where there is none. Numbers of a pair belong to the pair, so only its weight is kept."""
        pair = tuple(row.answers) == PAIR
        numbers = {name: value for name, value in row.columns.items() if not pair or name == "weight"}
        return [
            write_start(row)
            | {"original": row.glue + original, "corrected": None if one is None else row.glue + one.text}
            | keep_spans(row, role, "original_spans", by)
            | numbers
            | {"annotator": by.name, "annotation": by.record | {"reasons": [] if one is None else list(one.reasons)}}
            for role, one in zip(_corrected_roles(row), found, strict=True)
            for original in (plain_answer(row.answers[role].content),)
        ]

    def summarise(self, lines: Sequence[Json]) -> Json:
        """Corrections, and answers that needed none: those stay as they were, which the gate counts as `identical`."""
        corrected = [line for line in lines if line["corrected"] is not None]
        unchanged = sum(line["corrected"] == line["original"] for line in corrected)
        return {"corrected": len(corrected) - unchanged, "unchanged": unchanged}


def _corrected_roles(row: Row) -> list[str]:
    return ["rejected"] if tuple(row.answers) == PAIR else list(row.answers)
