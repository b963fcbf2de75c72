"""Exact checks of character spans: every span that covers nothing, lies outside its text or overlaps another one, and what reading did with them."""

from collections.abc import Iterator

from finegrain.data.annotators import group_spans
from finegrain.data.answer_text import join_answer
from finegrain.data.records import Answer, Row


def check_spans(row: Row) -> Iterator[tuple[str, str]]:
    """(kind, description), one for each span."""
    for answer in row.answers.values():
        yield from answer.notes
        if answer.spans:
            yield from _check_places(answer)


def _check_places(answer: Answer) -> Iterator[tuple[str, str]]:
    length = len(join_answer(answer.content))
    for annotator, spans in group_spans(answer.spans or (), answer.annotators).items():
        reached = 0
        for start, end, *_ in sorted(spans):
            if start >= end:
                yield "empty_span", f"span {start}..{end}"
                continue
            if start < 0 or end > length:
                yield "span_outside_text", f"span {start}..{end} of an answer of {length} characters"
            if start < reached:
                whose = f" of {annotator}" if annotator else ""
                yield (
                    "overlapping_spans",
                    f"span {start}..{end}{whose} begins before an earlier one ends; where they overlap the later one in the file counts",
                )
            reached = max(reached, end)
