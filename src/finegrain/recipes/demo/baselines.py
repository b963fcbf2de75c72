"""What a credit must beat to have found anything: a word list that has not read the pair, and a sentence's place, as scores of the same sentences."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from finegrain.evaluate.discrimination import auroc
from finegrain.types import Json

SIDES = ("chosen", "rejected")


def baseline_aurocs(rows: Sequence[Json], pool: Sequence[Json]) -> dict[str, float]:
    """AUROC against the truth, good against bad sentences of the pairs' answers, of scores that read no model."""
    judged = _judged(rows)
    good, places = np.array([sentence.good for sentence in judged]), np.array([float(-sentence.place) for sentence in judged])
    return {
        "word list from the pairs": auroc(_cross_fitted(rows, [], judged), good).mean,
        "word list from pairs and pool": auroc(_cross_fitted(rows, pool, judged), good).mean,
        "place in the answer": auroc(places, good).mean,
    }


class Sentence(NamedTuple):
    """A sentence whose quality is not 0."""

    pair: int
    """Place of its pair."""
    text: str
    good: bool
    place: int
    """In its answer."""


def _judged(rows: Sequence[Json]) -> list[Sentence]:
    answers = [(pair, row[role], row[f"{role}_truth"]) for pair, row in enumerate(rows) for role in SIDES]
    return [
        Sentence(pair, text[start:end], quality > 0, place)
        for pair, text, spans in answers
        for place, (start, end, quality) in enumerate(spans)
        if quality
    ]


def _cross_fitted(rows: Sequence[Json], pool: Sequence[Json], judged: Sequence[Sentence]) -> np.ndarray:
    """Scores of every sentence by a word list from the other half of the pairs, as the run's own scorer is fitted, and from the pool."""
    scores = np.zeros(len(judged))
    for half in (0, 1):
        others = [row for pair, row in enumerate(rows) if pair % 2 != half]
        own = [place for place, sentence in enumerate(judged) if sentence.pair % 2 == half]
        scores[own] = _word_scores([*others, *pool], [judged[place].text for place in own])
    return scores


def _word_scores(rows: Sequence[Json], sentences: Sequence[str]) -> np.ndarray:
    """A logistic regression of the label on the words that one answer has more often than the other, read off sentence by sentence."""
    words = CountVectorizer().fit([row[role] for row in rows for role in SIDES])
    difference = words.transform([row["chosen"] for row in rows]) - words.transform([row["rejected"] for row in rows])
    both = np.concatenate([difference.toarray(), -difference.toarray()])
    weights = LogisticRegression(fit_intercept=False, max_iter=500).fit(both, np.repeat([1, 0], len(rows))).coef_[0]
    return np.asarray(words.transform(sentences) @ weights)
