"""A user's own reward function, with the signature that GRPOTrainer's have: fn(prompts=, completions=, **columns) -> list.

An item of the list is a number, None (this answer is not judged), a list of spans (start, end, value), or a list of numbers, one per token.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

from finegrain.data.answer_text import join_answer
from finegrain.data.records import Text
from finegrain.errors import NonFiniteError, UsageError
from finegrain.scoring.function_file import is_function, load_function
from finegrain.types import CharSpan, Json

__all__ = ["Asked", "UserReward", "Verdict", "is_function", "open_function"]

TAKEN = frozenset({"prompt", "prompts", "completion", "completions", "chosen", "rejected", "response", "answer", "messages"})
"""Columns that are the texts themselves."""


class Asked(NamedTuple):
    """One answer to be judged."""

    row: int
    prompt: Text
    completion: Text
    columns: Mapping[str, Any]
    """The row of the data, as it is."""


class Verdict(NamedTuple):
    """What a function said of an answer."""

    score: float | None
    """The number itself, or the sum of spans' or tokens' values; None: not judged."""
    spans: Sequence[CharSpan] = ()
    tokens: Sequence[float] = ()


@dataclass(frozen=True)
class UserReward:
    """The function `name` of `file.py:name`."""

    path: str
    function: Callable[..., Any]

    def __call__(self, answers: Sequence[Asked]) -> list[Verdict]:
        """What it says of each answer, all of them in one call."""
        shared = set.intersection(*(set(one.columns) for one in answers)) - TAKEN if answers else set()
        columns = {name: [one.columns[name] for one in answers] for name in sorted(shared)}
        rows = f"rows {answers[0].row} to {answers[-1].row}" if answers else "no rows"
        try:
            found = self.function(prompts=[_plain(one.prompt) for one in answers], completions=[_plain(one.completion) for one in answers], **columns)
        except Exception as error:  # a user's code may fail in any way
            raise UsageError(f"{self.path} failed on {rows}: {type(error).__name__}: {error}") from error
        found = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != len(answers):
            told = f"{len(found)} items" if isinstance(found, Sequence) else type(found).__name__
            raise UsageError(f"{self.path} must return a list with one item per completion, {len(answers)} on {rows}; it returned {told}")
        verdicts = [_verdict(item, one.row, self.path) for item, one in zip(found, answers, strict=True)]
        for verdict, one in zip(verdicts, answers, strict=True):
            self._check_spans(verdict, one)
        return verdicts

    def _check_spans(self, verdict: Verdict, asked: Asked) -> None:
        """Raises UsageError for a span that does not lie in its answer, whatever becomes of the verdict."""
        text = join_answer(asked.completion)
        for start, end, _ in verdict.spans:
            if not 0 <= start < end <= len(text):
                raise UsageError(f"{self.path}, row {asked.row}: the span {start}..{end} does not lie in an answer of {len(text)} characters")


def open_function(path: str) -> UserReward:
    """The function of `file.py:name`."""
    return UserReward(path, load_function(path))


def _verdict(item: Any, row: int, path: str) -> Verdict:
    item = item.tolist() if hasattr(item, "tolist") else item
    if item is None:
        return Verdict(None)
    if isinstance(item, Real):
        return Verdict(_finite(item, row, path))
    if isinstance(item, Sequence) and all(isinstance(one, Real) for one in item) and len(item):
        values = [_finite(one, row, path) for one in item]
        return Verdict(sum(values), tokens=values)
    try:
        spans = [(int(start), int(end), _finite(value, row, path)) for start, end, value in item]
    except (TypeError, ValueError) as error:
        if isinstance(error, NonFiniteError):
            raise
        raise UsageError(f"{path}, row {row}: expected a number, None, numbers per token or spans (start, end, value), got {item!r:.80}") from error
    return Verdict(sum(value for _, _, value in spans), spans=spans)


def _finite(value: Any, row: int, path: str) -> float:
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise NonFiniteError(f"{path}, row {row}: a score is {number}; return None for an answer that cannot be judged")
    return number


def _plain(text: Text) -> str | list[Json]:
    """A string, or messages as dictionaries."""
    return text if isinstance(text, str) else [turn.message() for turn in text]
