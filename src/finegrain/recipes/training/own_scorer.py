"""The run's own scorer: a table of token scores from its pairs and marks, cross-fitted, so that no row is scored by a table that has seen it."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from finegrain.data.records import Example, Response
from finegrain.errors import CreditError
from finegrain.ops.proportions import wilson
from finegrain.ops.token_table import TokenTable, fit_marks, fit_pairs, inverse_frequency
from finegrain.ops.word_features import TokenType
from finegrain.types import Json, Ragged, Scored

FOLDS = 5
"""Parts of the rows, each scored by the table of the others [choice]: from halves the demo's tables put fewer pairs in order."""
PAIR = ("chosen", "rejected")
WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"[.!?\n]\s*$")

Marks = Mapping[str, Sequence[np.ndarray | None]]
"""By role, the token values (T,) of every annotated answer."""


class ScoredRows(NamedTuple):
    """Token scores of every answer."""

    scores: dict[str, list[Scored]]
    """By role; of a table that was made without the row."""
    facts: Json
    """For run.json: accuracy on pairs it has not seen, what it was made from, seconds."""

    def describe(self) -> str:
        """In a sentence."""
        words = (
            f"own scorer, a table of {self.facts['types']} words; the labels say something with probability {np.mean(self.facts['knowledge']):.2f}"
        )
        if right := self.facts.get("accuracy"):
            words += (
                f"; it puts {right['mean']:.0%} ({right['low']:.0%} to {right['high']:.0%}) of {right['rows']} pairs that it has not seen in order"
            )
        return words


def score_by_table(examples: Sequence[Example], roles: Sequence[str], masks: Mapping[str, Ragged], marks: Marks, seed: int) -> ScoredRows:
    """Cross-fitted scores of the tokens that train, with their posterior deviations; nats where there are pairs, else the marks' units."""
    pairs, marked = set(PAIR) <= set(roles), any(value is not None for own in marks.values() for value in own)
    if not pairs and not marked:
        raise CreditError(
            f"a run makes its own scorer from pairs or spans, and this one trains on {', '.join(roles)} without spans; "
            "give --credit.scorer, spans or a column"
        )
    if len(examples) < 2 * FOLDS:
        raise CreditError(
            f"{len(examples)} rows are too few to make a scorer of; give --credit.scorer, or credit.signal:spans to use the spans alone"
        )
    started = time.perf_counter()
    book = _Book(examples, roles, masks)
    folds = _folds(examples, seed)
    tables = [_fit(book, marks if marked else {}, np.flatnonzero(folds != fold), pairs) for fold in range(FOLDS)]
    scores = {role: [_scored(tables[fold], places) for fold, places in zip(folds, book.places[role], strict=True)] for role in roles}
    facts: Json = {"types": len(book.types), "knowledge": [round(table.knowledge, 4) for table in tables]}
    if pairs:
        margins = np.array(
            [sum(float(sign * scores[role][row].mean.sum()) for role, sign in zip(PAIR, (1, -1), strict=True)) for row in range(len(examples))]
        )
        facts["accuracy"] = wilson((np.sign(margins) + 1) / 2).as_json()
    return ScoredRows(scores, {**facts, "folds": FOLDS, "seconds": round(time.perf_counter() - started, 3)})


def _folds(examples: Sequence[Example], seed: int) -> np.ndarray:
    """(N,) part of every row; rows of one prompt stay together unless there are too few prompts."""
    _, prompts = np.unique([example.prompt_text for example in examples], return_inverse=True)
    groups = prompts if prompts.max() + 1 >= 2 * FOLDS else np.arange(len(examples))
    return (np.random.default_rng([seed, 2]).permutation(int(groups.max()) + 1) % FOLDS)[groups]


class _Book:
    """Types of all tokens that train."""

    def __init__(self, examples: Sequence[Example], roles: Sequence[str], masks: Mapping[str, Ragged]) -> None:
        numbers: dict[TokenType, int] = {}
        self.places = {
            role: [
                np.array(
                    [
                        numbers.setdefault(each, len(numbers)) if trains and each.word else -1
                        for each, trains in zip(find_types(example.responses[role]), mask, strict=True)
                    ]
                )
                for example, mask in zip(examples, masks[role], strict=True)
            ]
            for role in roles
        }
        self.ends = {role: [_sentence_ends(example.responses[role]) for example in examples] for role in roles}
        self.types = list(numbers)
        self.rarity = inverse_frequency(self.counts([places for role in roles for places in self.places[role]]))

    def counts(self, stretches: Sequence[np.ndarray]) -> sparse.csr_array:
        """(n, V) how often every type occurs."""
        kept = [places[places >= 0] for places in stretches]
        rows = np.repeat(np.arange(len(kept)), [len(places) for places in kept])
        columns = np.concatenate(kept) if kept else np.zeros(0, dtype=int)
        return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(kept), len(self.types)))


def find_types(response: Response) -> list[TokenType]:
    """The type of every token: its id, and the word it stands in."""
    words = {place: found[0].lower() for found in WORD.finditer(response.text) for place in range(found.start(), found.end())}
    found = []
    for token, (start, end) in zip(response.ids.tolist(), response.offsets.tolist(), strict=True):
        piece = response.text[start:end]
        first = start + len(piece) - len(piece.lstrip())
        found.append(TokenType(token, words.get(first, piece.strip().lower()) if piece.strip() else ""))
    return found


def _sentence_ends(response: Response) -> np.ndarray:
    """(T,) whether a sentence or line ends with the token."""
    return np.array([bool(SENTENCE_END.search(response.text[start:end])) for start, end in response.offsets.tolist()], dtype=bool)


def _fit(book: _Book, marks: Marks, rows: np.ndarray, pairs: bool) -> TokenTable:
    """The table of some rows."""
    stretches = [
        stretch
        for role, values in marks.items()
        for row in rows.tolist()
        if (own := values[row]) is not None
        for stretch in _stretches(book, role, row, own)
    ]
    marked = (
        fit_marks(book.types, book.counts([places for places, _ in stretches]), np.array([value for _, value in stretches]), book.rarity)
        if stretches
        else None
    )
    if not pairs:
        return marked or TokenTable(np.zeros(len(book.types)), np.zeros(len(book.types)), 0.0)
    chosen, rejected = (book.counts([book.places[role][row] for row in rows]) for role in PAIR)
    return fit_pairs(book.types, sparse.csr_array(chosen - rejected), book.rarity, marked)


def _stretches(book: _Book, role: str, row: int, values: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Runs of tokens of one value, cut at ends of sentences, with that value."""
    starts = np.flatnonzero((np.diff(values) != 0) | book.ends[role][row][:-1]) + 1
    return [
        (places, float(own[0]))
        for places, own in zip(np.split(book.places[role][row], starts), np.split(values, starts), strict=True)
        if (places >= 0).any()
    ]


def _scored(table: TokenTable, places: np.ndarray) -> Scored:
    inside = places >= 0
    return Scored(*(torch.from_numpy(np.where(inside, values[places], 0.0)) for values in (table.mean, table.std)))
