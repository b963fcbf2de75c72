"""Measures of a text as rewards: readability, and comparisons with the text that it was made from.

A source is `measure:NAME`, or `measure:NAME:COLUMN` with the column of the source text, by default the prompt (of a conversation its last question);
`measure:sari:COLUMN:REFERENCES` names the column of one reference or of a list of them too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from finegrain.data.answer_text import join_answer
from finegrain.data.records import Text
from finegrain.errors import DataError, UsageError, unknown_name
from finegrain.ops.readability import count_text, flesch_ease, flesch_kincaid
from finegrain.ops.sari import sari
from finegrain.ops.text_similarity import length_guard, similarity
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.text_reward import Completion, TextReward, open_token_reader

PROMPT = "prompt"
"""In place of a column: the prompt of the answer."""


@dataclass(frozen=True)
class _Measure:
    """One name."""

    compute: Callable[..., float]
    """(text), (text, source) or (text, source, references)."""
    columns: tuple[str, ...] = ()
    """What the columns behind the name hold."""
    needs: int = 0
    """How many of them must be named."""
    of_words: bool = False
    """Whether a text without words has none."""


MEASURES = {
    "fkgl": _Measure(lambda text: flesch_kincaid(count_text(text)), of_words=True),
    "fre": _Measure(lambda text: flesch_ease(count_text(text)), of_words=True),
    "similarity": _Measure(similarity, ("source",)),
    "length": _Measure(length_guard, ("source",)),
    "sari": _Measure(lambda text, source, references: sari(source, text, references), ("source", "references"), needs=2),
}
"""By name: Flesch-Kincaid grade level, Flesch reading ease, likeness in letters, the guard of the length, SARI in [0, 1]."""


def open_measure(sources: Sequence[str], options: RewardOptions) -> TextReward:
    """The measure of `measure:NAME[:COLUMN[:COLUMN]]`."""
    (source,) = sources
    name, *columns = source.removeprefix("measure:").split(":")
    if name not in MEASURES:
        raise unknown_name("measure", name, MEASURES)
    measure = MEASURES[name]
    if not measure.needs <= len(columns) <= len(measure.columns) or not all(columns):
        wanted = ":".join(f"COLUMN_OF_{one.upper()}" for one in measure.columns)
        raise UsageError(f"{source}: expected measure:{name}{f':{wanted}' if wanted else ''}{'' if measure.needs else ' or measure:' + name}")
    score = lambda asked: [_score(source, measure, columns, one) for one in asked]
    return TextReward(source, score, lambda: {"kind": "measure", "source": source, "name": name, "columns": columns}, open_token_reader(options))


def _score(source: str, measure: _Measure, columns: Sequence[str], asked: Completion) -> float | None:
    """None for a text without words where the measure is one of words."""
    text = join_answer(asked.completion)
    if measure.of_words and not count_text(text).words:
        return None
    if not measure.columns:
        return measure.compute(text)
    before = _column(source, columns[0], asked) if columns else _question(asked.prompt)
    if not isinstance(before, str):
        raise DataError(f"row {asked.row}: {source} reads a text, and the column {columns[0]} holds {type(before).__name__}")
    return measure.compute(text, before) if len(columns) < 2 else measure.compute(text, before, _references(source, columns[1], asked))


def _references(source: str, column: str, asked: Completion) -> list[str]:
    cell = _column(source, column, asked)
    found = [cell] if isinstance(cell, str) else cell
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise DataError(f"row {asked.row}: {source} compares with references, and the column {column} holds {cell!r:.60}")
    return found


def _column(source: str, name: str, asked: Completion) -> Any:
    if name == PROMPT:
        return _question(asked.prompt)
    if name not in asked.columns:
        there = ", ".join(map(str, asked.columns)) or "nothing"
        raise DataError(f"row {asked.row} has no column {name} for {source}; it has {there}")
    return asked.columns[name]


def _question(prompt: Text) -> str:
    """The prompt, or the last turn of its user."""
    return prompt if isinstance(prompt, str) else next((turn.content for turn in reversed(prompt) if turn.role == "user"), "")
