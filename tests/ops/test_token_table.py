"""Scores of words from pairs and marks. Test of ops/token_table.py, ops/word_features.py."""

import numpy as np
import pytest
from scipy import sparse

from finegrain.ops import token_table
from finegrain.ops.token_table import Labels, TokenTable, fit_best_prior, fit_marks, inverse_frequency
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


def certain(count: int) -> Labels:
    """Labels of 1, every row once."""
    return Labels(np.ones(count), np.ones(count))


def fit_pairs(types: list[TokenType], differences: sparse.csr_array, rarity: np.ndarray, marks: TokenTable | None = None) -> TokenTable:
    return token_table.fit_pairs(types, differences, certain(differences.shape[0]), rarity, marks)


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


HELD = np.arange(300) % 5 == 0


def test_the_prior_that_held_out_pairs_choose_finds_the_words_too() -> None:
    scores = fit_best_prior(TYPES, pairs(0, 300, EFFECTS), certain(300), ALIKE, HELD)
    assert np.argmax(scores) == 0
    assert np.argmin(scores) == 1
    assert np.abs(scores[2:]).max() < 0.5 < np.abs(scores[:2]).min()


def test_pairs_that_say_nothing_of_held_out_ones_leave_zeros() -> None:
    """The others' labels are turned round."""
    differences = sparse.csr_array(sparse.diags_array(np.where(HELD, -1.0, 1.0)) @ pairs(0, 300, EFFECTS))
    assert not fit_best_prior(TYPES, differences, certain(300), ALIKE, HELD).any()


def test_marks_say_what_few_pairs_do_not() -> None:
    marks = TokenTable(np.array([1.0, -1.0, *np.zeros(18)]), np.zeros(20), 1.0)
    few, held = pairs(3, 40, EFFECTS), HELD[:40]
    alone, both = (fit_best_prior(TYPES, few, certain(40), ALIKE, held, own) for own in (None, marks))
    assert both[0] - both[1] > alone[0] - alone[1]


def test_swapped_labels_change_the_sign_alone() -> None:
    own = pairs(1, 120, EFFECTS)
    table, swapped = fit_pairs(TYPES, own, ALIKE), fit_pairs(TYPES, sparse.csr_array(-own), ALIKE)
    np.testing.assert_allclose(swapped.mean, -table.mean, atol=1e-4)
    np.testing.assert_allclose(swapped.std, table.std, atol=1e-4)
    assert fit_pairs(TYPES, own, ALIKE).mean.tolist() == table.mean.tolist(), "the same twice"


@pytest.mark.slow
def test_more_pairs_do_not_switch_the_table_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weak scores of many words, from many times the pairs up to which covariances are exact."""
    monkeypatch.setattr(token_table, "EXACT", 300)
    rng = np.random.default_rng(0)
    types = [TokenType(number, f"w{number}") for number in range(60)]
    effects = rng.normal(0, 0.15, 60)
    difference = (rng.poisson(0.2, (3000, 60)) - rng.poisson(0.2, (3000, 60))).astype(float)
    signs = np.where(rng.random(3000) < 1 / (1 + np.exp(-(difference @ effects))), 1.0, -1.0)
    table = fit_pairs(types, sparse.csr_array(signs[:, None] * difference), np.ones(60))
    assert table.knowledge > 0.99
    assert np.corrcoef(table.mean, effects)[0, 1] > 0.8


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


def test_labels_have_probabilities_and_weights() -> None:
    """A row of weight 2 is two rows, a label of probability 3/4 is a quarter of the other one, and one of 1/2 or weight 0 says nothing."""
    own = pairs(0, 120, EFFECTS)
    more = sparse.csr_array(sparse.vstack([own, own[:40]]))
    weights = np.where(np.arange(120) < 40, 2.0, 1.0)
    weighted, repeated = token_table.fit_pairs(TYPES, own, Labels(np.ones(120), weights), ALIKE), fit_pairs(TYPES, more, ALIKE)
    np.testing.assert_allclose(weighted.mean, repeated.mean, atol=1e-4)
    np.testing.assert_allclose(weighted.std, repeated.std, atol=1e-4)
    both = sparse.csr_array(sparse.vstack([own, -own]))
    soft = token_table.fit_pairs(TYPES, own, Labels(np.full(120, 0.75), np.ones(120)), ALIKE)
    split = token_table.fit_pairs(TYPES, both, Labels(np.ones(240), np.repeat([0.75, 0.25], 120)), ALIKE)
    np.testing.assert_allclose(soft.mean, split.mean, atol=1e-4)
    assert np.abs(soft.mean[:2]).max() < np.abs(fit_pairs(TYPES, own, ALIKE).mean[:2]).min()
    for share, weight in ((0.5, 1.0), (1.0, 0.0)):
        np.testing.assert_allclose(token_table.fit_pairs(TYPES, own, Labels(np.full(120, share), np.full(120, weight)), ALIKE).mean, 0, atol=1e-4)
    np.testing.assert_allclose(
        token_table.fit_pairs(TYPES, own, Labels(np.zeros(120), np.ones(120)), ALIKE).mean, -fit_pairs(TYPES, own, ALIKE).mean, atol=1e-4
    )


def test_marks_say_how_much_a_word_changes_the_probability_of_a_good_stretch() -> None:
    rng = np.random.default_rng(0)
    counts = answers(rng, 400)
    good = (rng.random(400) < 0.1) != (counts @ EFFECTS > -0.1)
    marks = Labels(good.astype(float), np.ones(400))
    table = fit_marks(TYPES, counts, marks, ALIKE)
    assert table.knowledge > 0.999
    assert (int(np.argmax(table.mean)), int(np.argmin(table.mean))) == (0, 1)
    assert (np.abs(table.mean) < 1).all()
    turned = fit_marks(TYPES, counts, Labels(1 - marks.share, marks.weight), ALIKE)
    np.testing.assert_allclose(turned.mean, -table.mean, atol=1e-3)
    np.testing.assert_allclose(turned.std, table.std, atol=1e-3)
    shuffled = fit_marks(TYPES, counts, Labels(rng.permutation(marks.share), marks.weight), ALIKE)
    assert shuffled.knowledge < 0.2
    assert fit_marks(TYPES, counts, certain(400), ALIKE).mean.tolist() == [0.0] * len(WORDS), "one mark everywhere says nothing"
    assert fit_marks(TYPES, counts, Labels(marks.share, np.zeros(400)), ALIKE).mean.tolist() == [0.0] * len(WORDS)


def test_marks_saturate_and_forgive_a_slip() -> None:
    """Stretches of one word each: marked bad twice or ten times is nearly the same, and one slip among ten changes little; no mark says 0."""
    times = {0: (10, 0), 1: (2, 0), 2: (9, 1), 3: (5, 5), **{word: (0, 6) for word in range(4, 16)}}
    words = np.repeat(list(times), [sum(count) for count in times.values()])
    good = np.concatenate([np.repeat([0.0, 1.0], count) for count in times.values()])
    counts = sparse.csr_array((np.ones(len(words)), (np.arange(len(words)), words)), shape=(len(words), len(WORDS)))
    mean = fit_marks(TYPES, counts, Labels(good, np.ones(len(words))), ALIKE).mean
    assert mean[0] <= mean[1] < -0.4
    assert mean[1] - mean[0] < 0.25
    assert mean[2] - mean[0] < 0.1
    assert mean[2] < mean[3] < 0 < mean[4:16].min()
    np.testing.assert_allclose(mean[16:], 0.0, atol=0.02)


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
