"""`--task preference`: which of two answers is better, asked in both orders; where the orders disagree neither is.

Source: position bias of judges and the two orders: https://arxiv.org/abs/2306.05685.
Deviations: a tie in one order and a win in the other is a win with label_prob 0.75 [choice].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from finegrain.data.records import Row
from finegrain.recipes.annotation.replies import TEXT, object_schema, take_choice, take_reason
from finegrain.recipes.annotation.rows import (
    PAIR,
    Annotator,
    CheckedReply,
    Inquiry,
    NotAsked,
    keep_spans,
    mean_number,
    show_prompt,
    shown_answer,
    write_answer,
    write_start,
)
from finegrain.recipes.marking.joining import DIRECTED
from finegrain.types import Json, of_other_side

SHARES = {"A": 1.0, "tie": 0.5, "B": 0.0}
"""How far a word prefers the answer that stands first."""


class OrderedVerdict(NamedTuple):
    """The reply to one order."""

    first: float
    """1: the answer that stands first is better, 0.5: neither, 0: the other one."""
    reason: str


@dataclass(frozen=True)
class PreferenceTask:
    """Compares the answers of a pair, or every two answers of a prompt."""

    places = ("prompt", "answer_a", "answer_b")
    needed = ("answer_a", "answer_b")
    unanswered = "left out"

    @property
    def schema(self) -> Json:
        """Of a reply."""
        return object_schema(reason=TEXT, better={"type": "string", "enum": list(SHARES)})

    def inquire(self, row: Row) -> list[Inquiry]:
        """Two questions for every two answers."""
        asked = []
        for one, other in _compared_roles(row):
            for first, second in ((one, other), (other, one)):
                texts = {"prompt": show_prompt(row), "answer_a": shown_answer(row, first), "answer_b": shown_answer(row, second)}
                asked.append(Inquiry(texts, self.read))
        return asked

    def read(self, reply: Json) -> CheckedReply:
        """The verdict."""
        return CheckedReply(OrderedVerdict(SHARES[take_choice(reply, "better", tuple(SHARES))], take_reason(reply)))

    def write(self, row: Row, found: Sequence[OrderedVerdict | None], by: Annotator) -> list[Json]:
        """Pairs in the direction of the verdicts; a comparison without both verdicts gives none."""
        both = zip(_compared_roles(row), zip(found[::2], found[1::2], strict=True), strict=True)
        return [_write_pair(row, roles, one, other, by) for roles, (one, other) in both if one is not None and other is not None]

    def summarise(self, lines: Sequence[Json]) -> Json:
        """How often the two orders disagree, which way, and how often the verdict is that of the data."""
        disagree = [line for line in lines if not line["orders_agree"]]
        verdicts = [verdict for line in lines for verdict in line["annotation"]["verdicts"]]
        known = [line["agrees_with_data"] for line in lines if "agrees_with_data" in line]
        return {
            "comparisons": len(lines),
            "ties": sum(line["tie"] for line in lines),
            "orders_disagree": len(disagree),
            "first_preferred": mean_number(verdicts),
            "agrees_with_data": mean_number(known),
        }


def list_identical(row: Row) -> list[tuple[str, str]]:
    """Every two answers with the same text: nothing is asked about them."""
    return [(one, other) for one, other in combinations(row.answers, 2) if shown_answer(row, one) == shown_answer(row, other)]


def _compared_roles(row: Row) -> list[tuple[str, str]]:
    """Every two answers with different texts."""
    identical = set(list_identical(row))
    pairs = [pair for pair in combinations(row.answers, 2) if pair not in identical]
    if not pairs:
        raise NotAsked("no_two_answers")
    return pairs


def _write_pair(row: Row, roles: tuple[str, str], one: OrderedVerdict, other: OrderedVerdict, by: Annotator) -> Json:
    """The pair; columns of its sides change places with them, and numbers that the direction makes wrong are left out."""
    share = (one.first + 1 - other.first) / 2
    turned = share < 0.5
    sides = dict(zip(PAIR, roles[::-1] if turned else roles, strict=True))
    line = write_start(row) | {side: write_answer(row, role) for side, role in sides.items()}
    for side, role in sides.items():
        line |= keep_spans(row, role, f"{side}_spans", by)
    line |= {of_other_side(name) if turned else name: value for name, value in row.columns.items() if name not in DIRECTED}
    numbers = {"tie": int(share == 0.5), "label_prob": max(share, 1 - share), "orders_agree": int(one.first == 1 - other.first)}
    if tuple(row.answers) == PAIR:
        numbers["agrees_with_data"] = 1 - abs(share - (0.5 if row.columns.get("tie") else 1.0))
    return (
        line
        | numbers
        | {"annotator": by.name, "annotation": by.record | {"verdicts": [one.first, other.first], "reasons": [one.reason, other.reason]}}
    )
