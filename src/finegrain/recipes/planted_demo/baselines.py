"""What a credit must beat to have found anything: a word list and a sentence's place, as scores of the same sentences."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from finegrain.evaluate.discrimination import auroc
from finegrain.types import Json

SIDES = ("chosen", "rejected")


def baseline_aurocs(rows: Sequence[Json], pool: Sequence[Json]) -> dict[str, float]:
    """AUROC against the truth, good against bad sentences of the pairs' answers, of scores that read no model."""
    sentences, good, places = _judged(rows)
    return {
        "word list from the pairs": auroc(_word_scores(rows, sentences), good).mean,
        "word list from pairs and pool": auroc(_word_scores([*rows, *pool], sentences), good).mean,
        "place in the answer": auroc(places, good).mean,
    }


def _judged(rows: Sequence[Json]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Text, goodness and place of every sentence whose quality is not 0."""
    answers = [(row[role], row[f"{role}_truth"]) for row in rows for role in SIDES]
    judged = [(text[start:end], quality > 0, -place) for text, spans in answers for place, (start, end, quality) in enumerate(spans) if quality]
    return [text for text, _, _ in judged], np.array([good for _, good, _ in judged]), np.array([place for _, _, place in judged], dtype=float)


def _word_scores(rows: Sequence[Json], sentences: Sequence[str]) -> np.ndarray:
    """A logistic regression of the label on the words that one answer has more often than the other, read off sentence by sentence."""
    words = CountVectorizer().fit([row[role] for row in rows for role in SIDES])
    difference = words.transform([row["chosen"] for row in rows]) - words.transform([row["rejected"] for row in rows])
    both = np.concatenate([difference.toarray(), -difference.toarray()])
    weights = LogisticRegression(fit_intercept=False, max_iter=500).fit(both, np.repeat([1, 0], len(rows))).coef_[0]
    return np.asarray(words.transform(sentences) @ weights)
