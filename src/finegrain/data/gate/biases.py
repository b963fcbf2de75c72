"""How well three things that should not matter predict the label: length, a word list, the answer without its prompt.

Measured on a random sample of the examples by accuracy on held-out prompts (5 folds; each prompt is in exactly one fold),
with Wilson's 95 % interval for the number of independent examples that remain after accounting for shared prompts. For pairs, the label
is which answer was chosen; for labelled answers it is 0 or 1.
[choice] Folds, sample size, word count and regularisation strength.
"""

import random
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from finegrain.data.gate.texts import Texts
from finegrain.data.records import Row
from finegrain.ops.proportions import wilson
from finegrain.types import Json

CHARACTERS = 2000
"""Characters of each answer kept in the sample, to bound memory."""
FEWEST = 50
"""Nothing is measured on fewer examples."""
FOLDS = 5
LIST_WORDS = 200
"""Length of the word list: the most frequent words of the sample."""
HASHED = 1 << 14
"""Number of bins for hashed words and word pairs."""
WORD = r"(?u)\b\w+\b"
NAMES = ("longer_wins", "word_list", "answer_alone")


class Case(NamedTuple):
    """One sampled example."""

    prompt: int
    """Hash of the prompt."""
    good: str
    """The chosen answer, or the labelled one."""
    bad: str | None
    """The rejected answer; None where answers are labelled individually."""
    lengths: tuple[int, int]
    """Characters of both answers before cutting."""
    label: float


class BiasSample:
    """A uniform random sample of the examples offered (reservoir), of bounded size."""

    def __init__(self, size: int) -> None:
        self._size, self._random = size, random.Random(0)
        self.cases: list[Case] = []
        self.offered = 0

    def offer(self, row: Row, texts: Texts) -> None:
        """Offers one more example: a pair (or correction) or a labelled answer; demonstrations and ranked answers are skipped."""
        if self._size == 0 or not (texts.answers.keys() & {"rejected", "original"} or "label" in row.columns):
            return
        self.offered += 1
        place = len(self.cases) if len(self.cases) < self._size else self._random.randrange(self.offered)
        if place >= self._size:
            return
        answers = list(texts.answers.values())
        good, bad = answers[0], answers[1] if len(answers) > 1 else None
        key = int.from_bytes(blake2b(texts.prompt.encode("utf-8", "surrogatepass"), digest_size=7).digest(), "little")
        case = Case(key, good[:CHARACTERS], bad if bad is None else bad[:CHARACTERS], (len(good), len(bad or "")), row.columns.get("label", 1.0))
        self.cases[place : place + 1] = [case]


def measure_biases(sample: BiasSample) -> Json:
    """By name, accuracy with its interval, or the reason why nothing was measured."""
    cases = sample.cases
    if reason := _unmeasurable(cases):
        return {name: {"accuracy": None, "reason": reason} for name in NAMES}
    paired = all(case.bad is not None for case in cases)
    folds = np.array([case.prompt % FOLDS for case in cases])
    labels = np.array([case.label for case in cases]) == 1.0
    fit = _fit_pairs if paired else partial(_fit_labels, labels=labels)
    prompts = np.array([case.prompt for case in cases])
    measured = {"word_list": _word_list(cases), "answer_alone": _hashed(cases)} | ({} if paired else {"longer_wins": _lengths(cases)})
    found = {name: _told(fit(features, folds=folds), prompts) for name, features in measured.items()}
    found |= {"longer_wins": _longer(cases, prompts)} if paired else {}
    chance = 0.5 if paired else max(labels.mean(), 1 - labels.mean())
    return {**found, "sampled": len(cases), "of": sample.offered, "chance": round(float(chance), 4)}


def _unmeasurable(cases: list[Case]) -> str:
    if len(cases) < FEWEST:
        return f"{len(cases)} sampled examples with a label, fewer than {FEWEST}"
    if len({case.prompt % FOLDS for case in cases}) < 2:
        return "all prompts fall into one fold"
    alone = cases[0].bad is None and len({case.label for case in cases}) < 2
    return "all sampled examples have the same label" if alone else ""


def _told(right: np.ndarray, prompts: np.ndarray) -> Json:
    share = wilson(np.full(_independent(right, prompts), right.mean()))
    return {"accuracy": _rounded(share.mean), "low": _rounded(share.low), "high": _rounded(share.high), "rows": len(right)}


def _independent(right: np.ndarray, prompts: np.ndarray) -> int:
    """Effective number of independent examples, given that examples of one prompt are correlated (the design effect)."""
    names, cluster = np.unique(prompts, return_inverse=True)
    mean = right.mean()
    variance = (np.bincount(cluster, weights=right - mean) ** 2).sum() / len(right) ** 2
    return len(names) if variance == 0 else max(1, min(len(right), round(mean * (1 - mean) / variance)))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _longer(cases: list[Case], prompts: np.ndarray) -> Json:
    """Whether the longer answer of a pair was chosen; pairs of equal length are counted as ties."""
    more = np.array([case.lengths[0] - case.lengths[1] for case in cases])
    if not more.any():
        return {"accuracy": None, "reason": "both answers of every pair have the same length"}
    return {**_told(more[more != 0] > 0, prompts[more != 0]), "ties": int((more == 0).sum())}


Features = tuple[Any, Any]
"""Matrices of the chosen (or labelled) answers, and of the rejected ones or None."""


def _lengths(cases: list[Case]) -> Features:
    return np.log1p([[case.lengths[0]] for case in cases]), None


def _word_list(cases: list[Case]) -> Features:
    """Presence of the most frequent words."""
    from sklearn.feature_extraction.text import CountVectorizer

    return _of(CountVectorizer(max_features=LIST_WORDS, binary=True, token_pattern=WORD), cases)


def _hashed(cases: list[Case]) -> Features:
    """Hashed words and pairs of adjacent words."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return _of(HashingVectorizer(n_features=HASHED, ngram_range=(1, 2), alternate_sign=False, token_pattern=WORD), cases)


def _of(vectorizer: Any, cases: list[Case]) -> Features:
    good, bad = [case.good for case in cases], [case.bad for case in cases if case.bad is not None]
    try:
        found = vectorizer.fit_transform([*good, *bad])
    except ValueError:  # no answer has a word
        found = sparse.csr_matrix((len(good) + len(bad), 1))
    return found[: len(good)], found[len(good) :] if bad else None


def _fit_pairs(features: Features, folds: np.ndarray) -> np.ndarray:
    """Whether the difference of a pair's features predicts which answer was chosen; every second pair is swapped."""
    sign = np.where(np.arange(len(folds)) % 2 == 0, 1.0, -1.0)
    return _held_out(sparse.diags(sign).tocsr() @ (features[0] - features[1]), sign > 0, folds, intercept=False)


def _fit_labels(features: Features, folds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether an answer's features predict its label."""
    return _held_out(features[0], labels, folds, intercept=True)


def _held_out(x: Any, y: np.ndarray, folds: np.ndarray, intercept: bool) -> np.ndarray:
    """Whether a logistic regression fitted without its fold classifies each case correctly."""
    from sklearn.linear_model import LogisticRegression

    right = np.zeros(len(y), bool)
    for fold in np.unique(folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(np.unique(y[train])) < 2:
            right[test] = y[test] == y[train][0]
            continue
        fit = LogisticRegression(fit_intercept=intercept, max_iter=200).fit(x[train], y[train])
        right[test] = fit.predict(x[test]) == y[test]
    return right
