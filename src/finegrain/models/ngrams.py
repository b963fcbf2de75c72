"""N-grams of texts as sparse counts: features of a linear classifier, hashed, so that there is no vocabulary to keep.

Source: hashed features, Weinberger et al. 2009, https://arxiv.org/abs/0902.2206.
Deviations: rows have length 1, so that the length of a text is no feature [choice].
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Unit = Literal["word", "char"]


class NGrams(NamedTuple):
    """Which n-grams."""

    unit: Unit = "word"
    """word, or char: characters within words, their edges as spaces."""
    longest: int = 2
    """Units of the longest n-gram; all shorter ones are features too."""
    features: int = 2**16
    """Places that n-grams are hashed to."""


def count_ngrams(texts: Sequence[str], ngrams: NGrams) -> Any:
    """(N, features) sparse float64 matrix with rows of length 1; of a text without n-grams 0."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashed = HashingVectorizer(
        analyzer="word" if ngrams.unit == "word" else "char_wb",
        token_pattern=r"\S+" if ngrams.unit == "word" else None,
        ngram_range=(1, ngrams.longest),
        n_features=ngrams.features,
        alternate_sign=False,
        norm="l2",
    )
    return hashed.transform(list(texts))


def fit_linear(texts: Sequence[str], labels: Sequence[int], ngrams: NGrams, strength: float, seed: int) -> tuple[Any, Any]:
    """(weight, bias) of a logistic regression whose classes count alike; `strength`: inverse of the quadratic penalty."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000, random_state=seed).fit(count_ngrams(texts, ngrams), list(labels))
    return fitted.coef_, fitted.intercept_
