"""Suggested spans: the extreme segments of a scored file, and the aspects of all suggestions."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finegrain.data.read import read
from finegrain.errors import DataError
from finegrain.recipes.marking.tasks import Task, TaskAnswer, suggest_spans
from finegrain.types import CharSpan


def list_aspects(tasks: Sequence[Task]) -> list[str]:
    """The aspects of the suggested spans, the commonest first."""
    found: dict[str, int] = {}
    for task in tasks:
        for answer in task.answers:
            for known in answer.suggestions.values():
                if "aspect" in known:
                    found[known["aspect"]] = found.get(known["aspect"], 0) + 1
    return sorted(found, key=lambda name: -found[name])


class Segment(NamedTuple):
    """One scored segment of an answer."""

    answer: TaskAnswer
    start: int
    end: int
    mean: float


class ScoredFile(NamedTuple):
    """What was found in the output of `finegrain score`."""

    lines: int
    segments: list[Segment]
    missing: list[str]
    """Names of scored answers that are not on the page, or whose text differs there."""


def suggest_scored(tasks: Sequence[Task], file: Path, bad: float, good: float) -> ScoredFile:
    """Suggests the lowest share `bad` and the highest share `good` of all segments; adjacent ones become one suggestion."""
    scored = _read_scored(tasks, file)
    ranked = sorted(scored.segments, key=lambda one: one.mean)
    low, high = math.floor(bad * len(ranked)), len(ranked) - math.floor(good * len(ranked))
    for chosen, value in ((ranked[:low], -1.0), (ranked[high:], 1.0)):
        for answer, start, end, mean in _joined(chosen):
            suggest_spans(answer, [CharSpan(start, end, value)], score=float(f"{mean:.3g}"))
    return scored


def _read_scored(tasks: Sequence[Task], file: Path) -> ScoredFile:
    by_name = {name: answer for task in tasks for answer in task.answers for name in answer.ids}
    texts = Counter(answer.text[answer.before :] for task in tasks for answer in task.answers)
    alone = {text: answer for answer in by_name.values() if texts[text := answer.text[answer.before :]] == 1}
    segments: list[Segment] = []
    missing: list[str] = []
    scored = read(str(file))
    for where, raw in scored.rows:
        if missing_columns := [name for name in ("id", "response", "segments", "tokens") if name not in raw]:
            raise DataError(f"{where}: expected a line of finegrain score; it lacks {', '.join(missing_columns)}")
        answer = by_name.get(str(raw["id"]))
        if answer is None or not _same_text(answer, raw["response"]):
            answer = alone.get(str(raw["response"]))
        if answer is None:
            missing.append(str(raw["id"]))
        else:
            segments += [Segment(answer, *found) for found in _numbers(raw, where)]
    return ScoredFile(scored.count, segments, missing)


def _same_text(answer: TaskAnswer, response: Any) -> bool:
    return isinstance(response, str) and (response == answer.text[answer.before :] or bool(answer.hidden))


def _numbers(raw: Mapping[str, Any], where: str) -> Iterator[tuple[int, int, float]]:
    """Start, end and mean of the segments; of the tokens where there are no segments."""
    for item in raw["segments"] or raw["tokens"] or ():
        try:
            start, end, mean = int(item[0]), int(item[1]), float(item[2])
        except (TypeError, ValueError, IndexError, KeyError):
            raise DataError(f"{where}: expected segments [start, end, mean], found {item!r:.80}") from None
        if end > start and math.isfinite(mean):
            yield start, end, mean


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """Segments in the order of their answers, those that touch (or have one character between them) as one with their mean score."""
    joined: list[Segment] = []
    for one in sorted(segments, key=lambda one: (one.answer.id, one.start)):
        if joined and joined[-1].answer is one.answer and one.start <= joined[-1].end + 1:
            last = joined[-1]
            widths = (last.end - last.start, one.end - one.start)
            mean = (last.mean * widths[0] + one.mean * widths[1]) / sum(widths)
            joined[-1] = Segment(one.answer, last.start, max(last.end, one.end), mean)
        else:
            joined.append(one)
    return joined
