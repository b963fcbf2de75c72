"""How well answers without their prompts predict the label: the accuracy that a reward model must beat to show that it uses the prompt.

Source: ours [OURS].
Deviations: hashed words and word pairs, 5 folds by prompt, the strength of regularisation and the least number of prompts are [choice].
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Float
from scipy import sparse

FEWEST = 50
"""With fewer prompts nothing is fitted."""
FOLDS = 5
CHARACTERS = 2000
"""Characters read of each answer."""
HASHED = 1 << 14
WORD = r"(?u)\b\w+\b"


def prompt_blind_scores(prompts: Sequence[str], answers: Sequence[Sequence[str]], right: Sequence[int]) -> list[Float[np.ndarray, " _"]] | str:
    """A score of each answer by a logistic regression on its words, fitted to pairs of other prompts; or the reason why there is none.

    answers: by prompt, the `right` ones first. A pair is a right answer against a wrong one.
    """
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    folds = np.array([int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=7).digest(), "little") % FOLDS for text in prompts])
    if len(set(prompts)) < FEWEST:
        return f"{len(set(prompts))} prompts, fewer than {FEWEST}"
    starts = np.cumsum([0, *(len(own) for own in answers)])
    words = HashingVectorizer(n_features=HASHED, ngram_range=(1, 2), alternate_sign=False, token_pattern=WORD)
    features = words.transform([text[:CHARACTERS] for own in answers for text in own])
    good, bad, of = _pairs(starts, right)
    signs = np.where(np.arange(len(good)) % 2 == 0, 1.0, -1.0)  # every second pair is swapped
    differences = sparse.diags(signs).tocsr() @ (features[good] - features[bad])
    scores = np.zeros(len(starts) and starts[-1])
    fold_of_answer = np.repeat(folds, np.diff(starts))
    for fold in np.unique(folds):
        train = folds[of] != fold
        if len(np.unique(signs[train])) < 2:
            return "all prompts fall into one fold"
        fit = LogisticRegression(fit_intercept=False, max_iter=200).fit(differences[train], signs[train] > 0)
        own = fold_of_answer == fold
        scores[own] = fit.decision_function(features[own])
    return np.split(scores, starts[1:-1])


def _pairs(starts: np.ndarray, right: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the right and of the wrong answer of every pair, and the number of its prompt."""
    found = [
        (good, bad, number)
        for number, (first, last, count) in enumerate(zip(starts[:-1], starts[1:], right, strict=True))
        for good in range(first, first + count)
        for bad in range(first + count, last)
    ]
    good, bad, of = (np.array(column) for column in zip(*found, strict=True))
    return good, bad, of
