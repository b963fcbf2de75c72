"""`--task rubric`: ratings of every answer by several aspects, from 1 to a highest number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finegrain.data.records import Row
from finegrain.recipes.annotation.replies import TEXT, UnusableReply, object_schema, take_reason, take_whole
from finegrain.recipes.annotation.rows import Annotator, CheckedReply, Inquiry, mean_number, plain_answer, show_prompt, write_start
from finegrain.types import Json

USUAL = ("correctness", "relevance", "clarity")
"""Aspects where none are named [choice]."""


class AspectRatings(NamedTuple):
    """The ratings of one answer."""

    ratings: dict[str, int]
    reason: str


@dataclass(frozen=True)
class RubricTask:
    """Rates answers."""

    aspects: tuple[str, ...] = USUAL
    scale: int = 5

    places = ("prompt", "answer", "aspects", "scale")
    needed = ("answer",)
    unanswered = "left out"

    @property
    def schema(self) -> Json:
        """Of a reply."""
        rating: Json = {"type": "integer", "minimum": 1, "maximum": self.scale}
        return object_schema(reason=TEXT, ratings=object_schema(**dict.fromkeys(self.aspects, rating)))

    def inquire(self, row: Row) -> list[Inquiry]:
        """A question for each answer."""
        common = {"prompt": show_prompt(row), "aspects": ", ".join(self.aspects), "scale": str(self.scale)}
        return [Inquiry({**common, "answer": plain_answer(answer.content)}, self.read) for answer in row.answers.values()]

    def read(self, reply: Json) -> CheckedReply:
        """A whole number for every aspect; further names are not read."""
        ratings = reply.get("ratings")
        if not isinstance(ratings, dict):
            raise UnusableReply("wrong_form", '"ratings" is not an object')
        return CheckedReply(AspectRatings({name: take_whole(ratings, name, self.scale) for name in self.aspects}, take_reason(reply)))

    def write(self, row: Row, found: Sequence[AspectRatings | None], by: Annotator) -> list[Json]:
        """Rated answers; an answer without ratings gives none. That format has no spans and no other numbers."""
        return [
            write_start(row)
            | {"response": plain_answer(answer.content), "ratings": one.ratings}
            | {"annotator": by.name, "annotation": by.record | {"reasons": [one.reason]}}
            for answer, one in zip(row.answers.values(), found, strict=True)
            if one is not None
        ]

    def summarise(self, lines: Sequence[Json]) -> Json:
        """Mean ratings by aspect."""
        return {"rated": len(lines), "means": {name: mean_number([line["ratings"][name] for line in lines]) for name in self.aspects}}
