"""Sparse features of token types, by which a rare or unseen type inherits from those that are written alike.

Source: character n-grams of words: Bojanowski et al. 2017, https://arxiv.org/abs/1607.04606, section 3.2.
Deviations: n-grams of 3 to 5 characters as shares of a unit vector, words tied over case, and how they are mixed are [choice].
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

GRAMS = (3, 5)
"""Fewest and most characters of an n-gram, the word's edges included as spaces."""


class TokenType(NamedTuple):
    """What tokens have in common that share a score."""

    token: int
    """The tokenizer's id."""
    word: str
    """The word that the token is, or is a part of, in lower case; empty for tokens without characters."""


def type_features(types: Sequence[TokenType], *, spelling: float) -> sparse.csr_array:
    """(V, F) rows of length 1. `spelling` is the n-grams' share of its square, the rest belongs to the id and to the word in equal parts.

    The product of two rows is the prior correlation of two types' scores.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    part = np.sqrt((1 - spelling) / 2)
    blocks = [part * _indicators([each.token for each in types]), part * _indicators([each.word or f"\0{each.token}" for each in types])]
    if spelling > 0:
        grams = CountVectorizer(analyzer="char_wb", ngram_range=GRAMS, dtype=np.float64)
        counts = grams.fit_transform([*(each.word for each in types), "word"])[: len(types)]  # one more, since no n-gram at all is an error
        blocks.append(np.sqrt(spelling) * sparse.csr_array(normalize(counts)))
    return sparse.csr_array(sparse.hstack(blocks, format="csr"))


def _indicators(names: Sequence[int] | Sequence[str]) -> sparse.csr_array:
    """(V, distinct names): 1 at every type's own."""
    found, places = np.unique(np.array(names), return_inverse=True)
    return sparse.csr_array((np.ones(len(names)), (np.arange(len(names)), places)), shape=(len(names), len(found)))
