"""The run's own scorer: a table of token scores from its pairs and marks, cross-fitted, so that no row is scored by a table that has seen it."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from finegrain.data.annotators import TokenMarks, combine_annotators
from finegrain.data.aspects import annotation_of
from finegrain.data.records import Example, Response
from finegrain.errors import CreditError, DataError
from finegrain.ops.proportions import wilson
from finegrain.ops.token_table import Labels, TokenTable, fit_best_prior, fit_marks, fit_pairs, inverse_frequency
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
        better = np.sign(book.labels.share - 0.5)
        if better.any():
            facts["accuracy"] = wilson((np.sign(margins * better)[better != 0] + 1) / 2).as_json()
    return ScoredRows(scores, {**facts, "folds": FOLDS, "seconds": round(time.perf_counter() - started, 3)})


def score_by_whole_table(
    examples: Sequence[Example], masks: Mapping[str, Ragged], seed: int, *, read: int | None = None
) -> tuple[dict[str, Ragged], Json]:
    """By role, nats, the scores of the tokens of pairs by a table of the first `read` (all) of them and of their spans; and facts for run.json.

    Pairs that are held out, a part of `_folds`, choose its prior.
    """
    count = len(examples) if read is None else read
    if count < 2 * FOLDS:
        raise DataError(f"{count} pairs are too few to fit a table of words; drop --head.prior:word-table")
    started = time.perf_counter()
    book = _Book(examples, PAIR, masks)
    marks = {role: [None if own is None else own.value for own in found] for role, found in read_span_values(examples, PAIR).items()}
    rows = np.arange(count)
    held = _folds(examples[:count], seed) == 0
    means = fit_best_prior(book.types, _differences(book, rows), book.labels.take(rows), book.rarity, held, _fit_marks(book, marks, rows))
    scores = {role: [np.where(places >= 0, means[places], 0.0) for places in book.places[role]] for role in PAIR}
    return scores, {"types": len(book.types), "knows": bool(means.any()), "seconds": round(time.perf_counter() - started, 3)}


def read_span_values(examples: Sequence[Example], roles: Sequence[str]) -> dict[str, list[TokenMarks | None]]:
    """By role, the token values of annotated answers: of spans inside them, outside the opposite sign of all spans' values (+1 without any).

    The spread over annotators is pooled over all roles.
    """
    values: list[float] = [span.value for e in examples for side in roles for span in e.spans.get(side) or []]
    outside = -float(np.sign(sum(np.sign(values)))) if values else 1.0
    marked = iter(combine_annotators([annotation_of(example, role) for role in roles for example in examples], outside or 1.0))
    return {role: [next(marked) for _ in examples] for role in roles}


def _folds(examples: Sequence[Example], seed: int) -> np.ndarray:
    """(N,) part of every row; rows of one prompt stay together unless there are too few prompts."""
    _, prompts = np.unique([example.prompt_text for example in examples], return_inverse=True)
    groups = prompts if prompts.max() + 1 >= 2 * FOLDS else np.arange(len(examples))
    return (np.random.default_rng([seed, 2]).permutation(int(groups.max()) + 1) % FOLDS)[groups]


def _labels(examples: Sequence[Example]) -> Labels:
    """Probability that the chosen answer of each row is better, and the row's weight, from the columns that losses of pairs read."""
    share = np.array([0.5 if example.columns.get("tie", 0) > 0.5 else example.columns.get("label_prob", 1.0) for example in examples])
    flip = np.array([example.columns.get("flip", 0) > 0.5 for example in examples], dtype=bool)
    weight = np.array([example.columns.get("weight", 1.0) for example in examples])
    return Labels(np.where(flip, 1 - share, share), weight)


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
        self.labels = _labels(examples)
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
    marked = _fit_marks(book, marks, rows)
    if not pairs:
        return marked or TokenTable(np.zeros(len(book.types)), np.zeros(len(book.types)), 0.0)
    return fit_pairs(book.types, _differences(book, rows), book.labels.take(rows), book.rarity, marked)


def _differences(book: _Book, rows: np.ndarray) -> sparse.csr_array:
    """(n, V) counts of chosen answers minus those of rejected ones."""
    chosen, rejected = (book.counts([book.places[role][row] for row in rows]) for role in PAIR)
    return sparse.csr_array(chosen - rejected)


def _fit_marks(book: _Book, marks: Marks, rows: np.ndarray) -> TokenTable | None:
    """Scores by the marks of some rows; None where they have none."""
    stretches = [
        (places, value, book.labels.weight[row])
        for role, values in marks.items()
        for row in rows.tolist()
        if (own := values[row]) is not None
        for places, value in _stretches(book, role, row, own)
    ]
    if not stretches:
        return None
    counted, values, weights = zip(*stretches, strict=True)
    low, high = min(values), max(values)
    labels = Labels((np.array(values) - low) / ((high - low) or 1.0), np.array(weights))
    table = fit_marks(book.types, book.counts(counted), labels, book.rarity)
    return table._replace(mean=(high - low) * table.mean, std=(high - low) * table.std)


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
