"""Scores of words from pairs and marks. Test of ops/token_table.py, ops/word_features.py."""

import numpy as np
import pytest
from scipy import sparse

from finegrain.ops import token_table
from finegrain.ops.token_table import TokenTable, fit_marks, fit_pairs, inverse_frequency
from finegrain.ops.word_features import TokenType, type_features

WORDS = ("good", "bad", *(f"w{number}" for number in range(18)))
TYPES = [TokenType(number, word) for number, word in enumerate(WORDS)]
ALIKE = np.ones(len(WORDS))


def answers(rng: np.random.Generator, count: int) -> sparse.csr_array:
    return sparse.csr_array(rng.poisson(0.6, (count, len(WORDS))).astype(float))


def pairs(seed: int, count: int, effects: np.ndarray) -> sparse.csr_array:
    """Differences of counts, labelled by Bradley-Terry under the words' effects."""
    rng = np.random.default_rng(seed)
    first, second = answers(rng, count), answers(rng, count)
    difference = first - second
    chosen = rng.random(count) < 1 / (1 + np.exp(-(difference @ effects)))
    return sparse.csr_array(sparse.diags_array(np.where(chosen, 1.0, -1.0)) @ difference)


EFFECTS = np.array([1.5, -1.5, *np.zeros(18)])


def test_words_that_decide_are_found() -> None:
    table = fit_pairs(TYPES, pairs(0, 300, EFFECTS), ALIKE)
    assert table.knowledge > 0.999
    assert np.argmax(table.mean) == 0
    assert np.argmin(table.mean) == 1
    assert np.abs(table.mean[2:]).max() < 0.5 < np.abs(table.mean[:2]).min()
    assert (np.abs(table.mean - EFFECTS) < 4 * table.std).all()


def test_labels_that_say_nothing_leave_nothing() -> None:
    """Shrunk by evidence: less with every pair, and a weight of Phi(mean / std) near one half."""
    ignorance, sizes = [], []
    for count in (50, 800):
        tables = [fit_pairs(TYPES, pairs(seed, count, 0 * EFFECTS), ALIKE) for seed in range(6)]
        ignorance.append(1 - np.mean([table.knowledge for table in tables]))
        sizes.append(np.mean([np.abs(table.mean).mean() for table in tables]))
    assert ignorance[1] > ignorance[0] > 0.3
    assert ignorance[1] > 0.95
    assert sizes[1] < sizes[0] / 5
    assert sizes[1] < 0.01


def test_labels_that_contradict_one_another_give_exact_zeros() -> None:
    """Every pair once in each direction: the likelihood is largest at scores of 0, whatever the prior."""
    one = pairs(0, 30, EFFECTS)
    table = fit_pairs(TYPES, sparse.csr_array(sparse.vstack([one, -one])), ALIKE)
    np.testing.assert_allclose(table.mean, 0.0, atol=1e-4)
    assert fit_pairs(TYPES, sparse.csr_array((40, len(WORDS))), ALIKE).mean.tolist() == [0.0] * len(WORDS)


def test_swapped_labels_change_the_sign_alone() -> None:
    own = pairs(1, 120, EFFECTS)
    table, swapped = fit_pairs(TYPES, own, ALIKE), fit_pairs(TYPES, sparse.csr_array(-own), ALIKE)
    np.testing.assert_allclose(swapped.mean, -table.mean, atol=1e-4)
    np.testing.assert_allclose(swapped.std, table.std, atol=1e-4)
    assert fit_pairs(TYPES, own, ALIKE).mean.tolist() == table.mean.tolist(), "the same twice"


def test_rare_words_are_less_certain() -> None:
    rng = np.random.default_rng(0)
    rates = np.geomspace(0.05, 3.0, len(WORDS))
    difference = (rng.poisson(rates, (400, len(WORDS))) - rng.poisson(rates, (400, len(WORDS)))).astype(float)
    signs = np.where(rng.random(400) < 1 / (1 + np.exp(-0.5 * difference @ np.resize([1, -1], len(WORDS)))), 1.0, -1.0)
    std = fit_pairs(TYPES, sparse.csr_array(signs[:, None] * difference), ALIKE).std
    assert np.corrcoef(std, np.log(rates))[0, 1] < -0.9
    assert std[0] > 2 * std[-1] > 0


def test_deviations_are_those_of_the_full_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under one prior: the inverse of the precision matrix, worked out naively; the diagonal of the precision alone beyond the limit."""
    monkeypatch.setattr(token_table, "SPELLING", (0.0,))
    monkeypatch.setattr(token_table, "VARIANCES", (0.25,))
    monkeypatch.setattr(token_table, "IGNORANCE", 1e-12)
    own = pairs(0, 90, EFFECTS)
    table = fit_pairs(TYPES, own, ALIKE)
    dense = own.toarray()
    margins = dense @ table.mean
    curvature = np.exp(-margins) / (1 + np.exp(-margins)) ** 2
    precision = np.eye(len(WORDS)) / 0.25 + dense.T @ (curvature[:, None] * dense)
    np.testing.assert_allclose(table.std, np.sqrt(np.diag(np.linalg.inv(precision))), rtol=1e-3)
    np.testing.assert_allclose(dense.T @ (1 / (1 + np.exp(margins))), table.mean / 0.25, atol=1e-3)
    monkeypatch.setattr(token_table, "EXACT", 20)
    diagonal = fit_pairs(TYPES, own, ALIKE)
    np.testing.assert_array_equal(diagonal.mean, table.mean)
    assert ((diagonal.std > table.std) & (diagonal.std < 0.5)).all(), "features that stand for one another are taken as if each alone could vary"


def test_marks_give_means_shrunk_towards_all() -> None:
    rng = np.random.default_rng(0)
    counts = answers(rng, 400)
    values = np.where(rng.random(400) < 0.1, -1.0, 1.0) * np.sign(counts @ EFFECTS + 0.1)
    table = fit_marks(TYPES, counts, values, ALIKE)
    assert table.knowledge > 0.999
    assert (int(np.argmax(table.mean)), int(np.argmin(table.mean))) == (0, 1)
    doubled = fit_marks(TYPES, counts, 2 * values, ALIKE)
    np.testing.assert_allclose(doubled.mean, 2 * table.mean, rtol=1e-5, atol=1e-8)
    shuffled = fit_marks(TYPES, counts, rng.permutation(values), ALIKE)
    assert shuffled.knowledge < 0.2
    assert fit_marks(TYPES, counts, np.ones(400), ALIKE).mean.tolist() == [0.0] * len(WORDS), "one value everywhere says nothing"


def test_pairs_say_what_a_mark_is_worth() -> None:
    """Marks of any unit come out in nats, and marks against which the pairs speak are turned round or given up."""
    own = pairs(3, 200, EFFECTS)
    exact = TokenTable(EFFECTS, np.zeros(len(WORDS)), 1.0)
    alone, helped = fit_pairs(TYPES, own, ALIKE), fit_pairs(TYPES, own, ALIKE, exact)
    assert np.linalg.norm(helped.mean - EFFECTS) < np.linalg.norm(alone.mean - EFFECTS)
    other_unit = fit_pairs(TYPES, own, ALIKE, TokenTable(40 * EFFECTS, np.zeros(len(WORDS)), 1.0))
    np.testing.assert_allclose(other_unit.mean, helped.mean, atol=1e-4)
    unsure = fit_pairs(TYPES, own, ALIKE, exact._replace(std=np.full(len(WORDS), 0.5)))
    assert (unsure.std > helped.std).all()
    nothing = fit_pairs(TYPES, own, ALIKE, TokenTable(np.zeros(len(WORDS)), np.zeros(len(WORDS)), 0.0))
    np.testing.assert_array_equal(nothing.mean, alone.mean)


def test_unseen_words_inherit_from_those_spelt_alike() -> None:
    words = [TokenType(number, word) for number, word in enumerate(("wonderful", "dreadful", "wonderfully", "dreadfully", "xq"))]
    rng = np.random.default_rng(0)
    rows = rng.choice([1.0, -1.0], 200)[:, None] * np.array([1.0, -1.0, 0, 0, 0])
    right = np.abs(rows) * np.array([1.0, -1.0, 0, 0, 0])
    table = fit_pairs(words, sparse.csr_array(np.where(rng.random((200, 1)) < 0.9, right, -right)), np.ones(5))
    assert table.mean[2] > 0 > table.mean[3]
    assert table.mean[4] == pytest.approx(0.0, abs=1e-9)


def test_features_have_length_one_and_tie_case() -> None:
    types = [TokenType(0, "good"), TokenType(1, "good"), TokenType(2, "goods"), TokenType(3, ""), TokenType(4, "")]
    for spelling in (0.0, 0.5):
        features = type_features(types, spelling=spelling).toarray()
        shared = features @ features.T
        np.testing.assert_allclose(np.diag(shared)[:3], 1.0)
        assert shared[0, 1] == pytest.approx((1 - spelling) / 2 + spelling)
        assert (shared[0, 2] > 0) == (spelling > 0)
        assert shared[3, 4] == 0


def test_words_of_every_answer_have_no_rarity() -> None:
    counts = sparse.csr_array(np.array([[3.0, 1, 0, 0], [1, 0, 0, 1], [2, 1, 0, 0], [5, 0, 0, 0]]))
    np.testing.assert_allclose(inverse_frequency(counts), [0, 0.5, 1, 1])
