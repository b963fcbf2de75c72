"""How far several annotators of the same answers agree: Krippendorff's alpha over the characters of the answers.

Nominal: whether a character is marked good, marked bad or not marked; by aspect: whether it is marked with the aspect. Interval: the value, 0 where
a character is not marked. An annotator who marked nothing takes part with an unmarked answer.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from finegrain.data.annotators import group_spans
from finegrain.data.answer_text import join_answer
from finegrain.data.findings import Findings
from finegrain.data.records import Answer, Row
from finegrain.ops.krippendorff import IntervalAlpha, NominalAlpha
from finegrain.types import CharSpan, Json

MOST_ASPECTS = 20
"""Aspects that are reported, those with the most marked characters first."""


class Agreement:
    """What the annotators of the rows seen so far said."""

    def __init__(self) -> None:
        self._several: Counter[int] = Counter()
        self._names: set[str] = set()
        self._annotated = 0
        self._nominal, self._interval = NominalAlpha(), IntervalAlpha()
        self._aspects: dict[str, NominalAlpha] = {}
        self._seen: tuple[int, set[str]] = (-1, set())

    def look(self, number: int, row: Row) -> None:
        """Counts the answers of one more example; an answer that stands in several examples of a source row counts once."""
        for answer in row.answers.values():
            if answer.spans is None:
                continue
            text = join_answer(answer.content)
            if self._seen[0] != number:
                self._seen = (number, set())
            if text in self._seen[1]:
                continue
            self._seen[1].add(text)
            self._annotated += 1
            self._names.update(answer.annotators)
            self._add(answer, len(text))

    def _add(self, answer: Answer, length: int) -> None:
        own = group_spans(answer.spans or (), answer.annotators)
        if len(own) < 2 or not length:
            return
        self._several[len(own)] += 1
        places = sorted({0, length, *(_inside(place, length) for spans in own.values() for span in spans for place in span[:2])})
        weights = np.diff(places).astype(np.float64)
        values = _paint(list(own.values()), places)
        self._nominal.add(np.sign(values), weights)
        self._interval.add(values, weights)
        aspects = {span.aspect for spans in own.values() for span in spans} - {""}
        for name in aspects:
            marked = [[span._replace(value=1.0) for span in spans if span.aspect == name] for spans in own.values()]
            self._aspects.setdefault(name, NominalAlpha()).add(_paint(marked, places), weights)

    def measure(self) -> Json | None:
        """For gate.json; None where no answer is annotated."""
        if not self._annotated:
            return None
        facts: Json = {"answers": self._annotated, "annotators": len(self._names)}
        if not self._several:
            return {**facts, "alpha": None, "reason": self._alone()}
        by_count = {str(count): answers for count, answers in sorted(self._several.items())}
        alphas = {"nominal": _rounded(self._nominal.alpha()), "interval": _rounded(self._interval.alpha())}
        return {**facts, "answers_by_annotators": by_count, "alpha": alphas, "by_aspect": self._by_aspect()}

    def _alone(self) -> str:
        if not self._names:
            return "the data do not name annotators, so their agreement cannot be measured"
        who = "one annotator" if len(self._names) == 1 else f"{len(self._names)} annotators"
        return f"{who}, one for each answer, so their agreement cannot be measured, and spans have no standard deviation unless they state one"

    def _by_aspect(self) -> Json:
        """Alpha by aspect; the answers in which nobody marked the aspect agree that it is not there."""
        whole = sum(self._nominal.counts.values())
        found = []
        for name, own in self._aspects.items():
            marked = own.counts.get(1.0, 0.0)
            own.counts[0.0] = whole - marked
            found.append((-marked, name, {"alpha": _rounded(own.alpha()), "marked_share": _rounded(marked / whole)}))
        return {name: facts for _, name, facts in sorted(found, key=lambda one: one[:2])[:MOST_ASPECTS]}

    def describe(self) -> str:
        """For a person."""
        facts = self.measure()
        if facts is None or facts["alpha"] is None:
            return "" if facts is None else str(facts["reason"])
        numbers = ", ".join(f"{name} {_written(value)}" for name, value in facts["alpha"].items())
        aspects = ", ".join(f"{name} {_written(one['alpha'])}" for name, one in list(facts["by_aspect"].items())[:5])
        several = sum(self._several.values())
        told = f"Krippendorff's alpha over the characters of {several} answers with several annotators: {numbers}"
        return told + (f"; by aspect: {aspects}" if aspects else "")

    def report(self, findings: Findings) -> None:
        """Adds the measurement, and where annotators are named the finding `agreement`."""
        facts = self.measure()
        if facts is None:
            return
        findings.measured["agreement"] = facts
        if self._names:
            findings.add_file("agreement", "not measured" if facts["alpha"] is None else "measured", self.describe())


def _inside(place: int, length: int) -> int:
    return min(max(place, 0), length)


def _paint(annotators: Sequence[Sequence[CharSpan]], places: Sequence[int]) -> np.ndarray:
    """(A, U) values of the runs between places; the later span wins."""
    index = {place: number for number, place in enumerate(places)}
    values = np.zeros((len(annotators), len(places) - 1))
    for own, spans in zip(values, annotators, strict=True):
        for start, end, value, *_ in spans:
            own[index[_inside(start, places[-1])] : index[_inside(end, places[-1])]] = value
    return values


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _written(value: float | None) -> str:
    return "undefined (all alike)" if value is None else f"{value:.2f}"
