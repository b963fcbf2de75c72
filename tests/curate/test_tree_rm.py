"""Trees of responses: their pairs, and what comparisons within them leave open."""

import numpy as np
import pytest
import torch

from finegrain.curate.inference_distance import inference_distance, prefix_kernel
from finegrain.curate.tree import (
    ByDepth,
    Hardest,
    LeafPair,
    Uniform,
    common_prefix,
    draw_pairs,
    find_distinct,
    leaf_pairs,
    make_preference_row,
    saved_share,
)
from finegrain.curate.tree_rm import Ids, TreeRM
from finegrain.errors import UsageError
from finegrain.objectives.dpo import DPO
from finegrain.types import Pair, Side

TREE = ["abcd", "abce", "abx", "pq", "abcd"]
"""Branches after nothing, after ab and after abc; the last repeats the first."""


def test_pairs_by_hand() -> None:
    assert find_distinct(TREE) == [0, 1, 2, 3]
    assert leaf_pairs(TREE) == [
        LeafPair(0, 1, 3, 2),
        LeafPair(0, 2, 2, 1),
        LeafPair(0, 3, 0, 0),
        LeafPair(1, 2, 2, 1),
        LeafPair(1, 3, 0, 0),
        LeafPair(2, 3, 0, 0),
    ]
    assert saved_share(LeafPair(0, 1, 3, 2), TREE) == 6 / 8


def test_an_answer_that_begins_another() -> None:
    assert leaf_pairs(["ab", "abc"]) == [LeafPair(0, 1, 2, 0)]
    assert common_prefix("", "abc") == 0


def test_one_leaf_has_no_pairs() -> None:
    assert leaf_pairs(["abc", "abc"]) == []


def test_samplers() -> None:
    pairs = leaf_pairs(TREE)
    for sampler in (Uniform(), ByDepth(), Hardest()):
        found = sampler(pairs, 4, np.random.default_rng(0))
        assert len(set(found)) == 4
        assert set(found) <= set(pairs)
        assert sorted(sampler(pairs, 99, np.random.default_rng(0))) == sorted(pairs), "a budget beyond all pairs gives all"
    assert [pair.lca_depth for pair in ByDepth()(pairs, 4, np.random.default_rng(0))] == [2, 1, 0, 1]
    assert [pair.prefix for pair in Hardest()(pairs, 3, np.random.default_rng(0))] == [3, 2, 2]
    first = {Uniform()(pairs, 1, np.random.default_rng(seed))[0] for seed in range(60)}
    assert first == set(pairs)


def test_the_share_of_independent_pairs() -> None:
    found = draw_pairs(leaf_pairs(TREE), 5, 0.4, Hardest(), np.random.default_rng(0))
    assert [pair.lca_depth for pair in found] == [0, 0, 2, 1, 1]
    assert len(set(found)) == 5


def test_all_or_none_may_part_at_the_root() -> None:
    pairs = leaf_pairs(TREE)
    assert [pair.lca_depth for pair in draw_pairs(pairs, 4, 1.0, Hardest(), np.random.default_rng(0))] == [0, 0, 0, 2], (
        "three do; the sampler fills up"
    )
    assert [pair.lca_depth for pair in draw_pairs(pairs, 3, 0.0, Hardest(), np.random.default_rng(0))] == [2, 1, 1]


def test_nothing_is_saved_of_empty_answers() -> None:
    assert saved_share(LeafPair(0, 1, 0, 0), ["", ""]) == 0.0


@pytest.mark.parametrize(("scores", "leaves"), [([2.0, 0.5], [0, 1]), ([0.5, 2.0], [1, 0]), ([1.0, 1.0], [0, 1])])
def test_the_better_answer_is_chosen_and_of_equals_the_first(scores: list[float], leaves: list[int]) -> None:
    row = make_preference_row("hi", ["one", "two"], LeafPair(0, 1, 0, 0), scores, tree=0)
    assert row["leaf_ids"] == leaves
    assert (row["chosen"], row["rejected"]) == tuple(["one", "two"][leaf] for leaf in leaves)
    assert row["score_difference"] == abs(scores[0] - scores[1])


def test_rows_share_exactly_what_they_say() -> None:
    texts = ["good day", "good dog", "bad"]
    ids = [("good", " day"), ("good", " dog"), ("bad",)]
    scores = [0.5, 2.0, 2.0]
    rows = [make_preference_row("hi", texts, pair, scores, tree=4) for pair in leaf_pairs(ids)]
    assert rows[0] == {
        "prompt": "hi",
        "chosen": "good dog",
        "rejected": "good day",
        "tree_id": 4,
        "leaf_ids": [1, 0],
        "lca_depth": 1,
        "prefix_tokens": 1,
        "prefix_chars": 6,
        "score_difference": 1.5,
        "tie": 0,
    }
    for row in rows:
        length = row["prefix_chars"]
        assert row["chosen"][:length] == row["rejected"][:length]
        assert row["chosen"][length : length + 1] != row["rejected"][length : length + 1]
    assert [row["tie"] for row in rows] == [0, 0, 1]


def count_up(responses: list[Ids], finish: bool, seed: int) -> list[tuple[Ids, bool]]:
    """Every response with two more tokens, its own number in the call first; 9 ends it."""
    return [((*response, place % 2, 5), finish) for place, response in enumerate(responses)]


def settings(**given: int) -> TreeRM:
    return TreeRM(reward="file.py:name", **given)


def test_growing() -> None:
    leaves = settings(depth=3, branching=2).grow(count_up, 0)
    assert len(leaves) == 8
    assert all(len(leaf) == 6 for leaf in leaves), "a leaf is the concatenation of its segments"
    depths = sorted(pair.lca_depth for pair in leaf_pairs(leaves))
    assert depths == [0] * 16 + [1] * 8 + [2] * 4
    assert {(pair.prefix, pair.lca_depth) for pair in leaf_pairs(leaves)} == {(0, 0), (2, 1), (4, 2)}


def test_every_level_is_one_call_with_its_own_seed() -> None:
    calls = []

    def extend(asked: list[Ids], finish: bool, seed: int) -> list[tuple[Ids, bool]]:
        calls.append((len(asked), finish, seed))
        return count_up(asked, finish, seed)

    settings(depth=3, branching=2).grow(extend, 5)
    assert calls == [(2, False, 15), (4, False, 16), (8, True, 17)]


def test_nothing_is_asked_where_every_answer_has_ended() -> None:
    calls = []

    def extend(asked: list[Ids], finish: bool, seed: int) -> list[tuple[Ids, bool]]:
        calls.append(len(asked))
        return [((1,), True) for _ in asked]

    assert settings(depth=3, branching=2).grow(extend, 0) == [(1,)]
    assert calls == [2]


def test_limiting_trees() -> None:
    """One child per node is one answer, without pairs; depth 1 is independent sampling."""
    one = settings(branching=1)
    assert len(one.grow(count_up, 0)) == 1
    assert one(one.grow(count_up, 0), np.random.default_rng(0)) == []
    flat = settings(depth=1, branching=2)
    assert {pair.lca_depth for pair in flat(flat.grow(count_up, 0), np.random.default_rng(0))} == {0}


def test_an_ended_answer_grows_no_further_and_repeats_are_one() -> None:
    leaves = settings(depth=2, branching=3).grow(lambda asked, finish, seed: [((*r, 1), finish or not r) for r in asked], 0)
    assert leaves == [(1,)]


def test_shared_tokens_carry_no_credit() -> None:
    """What both answers begin with has the same log-probabilities, and cancels whatever its weight."""
    generator = torch.Generator().manual_seed(0)
    shared, own = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64), torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)

    def side(k: int, weight: float) -> Side:
        logp, ref = torch.cat([shared[0], own[k]], 1), torch.cat([shared[1], own[k + 2]], 1)
        weights = torch.ones(3, 6, dtype=torch.float64)
        weights[:, :4] = weight
        return Side(logp=logp, ref_logp=ref, weight=weights, mask=torch.ones(3, 6, dtype=torch.bool))

    plain, without = (DPO()(Pair(sides={"chosen": side(0, w), "rejected": side(1, w)})) for w in (1.0, 0.0))
    torch.testing.assert_close(plain, without, rtol=0, atol=1e-12)


def flat(count: int) -> np.ndarray:
    return 1e7 * np.eye(count)


def test_the_kernel_of_a_tree_by_hand() -> None:
    """Leaves 00, 01 and 11; where paths part once they stay apart, though both end in 1."""
    kernel = prefix_kernel(np.array([[0, 0], [0, 1], [1, 1]]), [2.0, 3.0])
    assert kernel.tolist() == [[5.0, 2.0, 0.0], [2.0, 5.0, 0.0], [0.0, 0.0, 5.0]]


def test_a_comparison_by_hand() -> None:
    """Independent rewards of variance 1, one comparison with noise 1: the variance 2 of the difference falls by 2^2 / (2 + 1)."""
    found = inference_distance(np.eye(3), np.array([[0, 1]]), 1.0)
    np.testing.assert_allclose(found, [[0, 2 / 3, 5 / 3], [2 / 3, 0, 5 / 3], [5 / 3, 5 / 3, 0]], atol=1e-12)


def test_effective_resistance() -> None:
    """Series adds, parallel halves, what is not connected keeps its prior variance."""
    path = inference_distance(flat(5), np.array([[0, 1], [1, 2], [2, 3]]), 0.5)
    assert path[0, 3] == pytest.approx(3 * 0.25, rel=1e-5)
    twice = inference_distance(flat(2), np.array([[0, 1], [1, 0]]), 0.5)
    assert twice[0, 1] == pytest.approx(0.25 / 2, rel=1e-5)
    assert path[0, 4] == pytest.approx(1e7 + 1e7 / 4, rel=1e-5), "the mean of four against one that was never compared"
    kernel = prefix_kernel(np.array([[0, 0], [0, 1], [1, 0]]), [0.3, 0.7])
    untouched = inference_distance(kernel, np.array([[0, 1]]), 0.5)
    assert kernel.tolist() == [[1.0, 0.3, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert untouched[0, 1] == pytest.approx(1 / (1 / 1.4 + 1 / 0.25))


def test_comparisons_in_a_tree_tell_siblings_apart() -> None:
    """64 leaves in 8 families, 64 comparisons of noise 0.5, in the tree or among strangers to it: what is left of siblings' prior variance."""
    paths = np.array([(a, b) for a in range(8) for b in range(8)])
    fresh = np.array([(8 + k, 0) for k in range(128)])
    kernel = prefix_kernel(np.concatenate([paths, fresh]), [0.5, 0.5])
    rng = np.random.default_rng(0)
    chosen = rng.permutation([(i, j) for i in range(64) for j in range(i)])[:64]
    chain = np.arange(64, 192).reshape(64, 2)
    sibling = [(i, j) for i in range(64) for j in range(i) if paths[i, 0] == paths[j, 0]]

    def left(compared: np.ndarray) -> float:
        found, prior = inference_distance(kernel, compared, 0.5), inference_distance(kernel, compared[:0], 0.5)
        return float(np.mean([found[i, j] / prior[i, j] for i, j in sibling]))

    assert left(chosen) < 0.5 < 0.99 < left(chain)


def test_bad_settings() -> None:
    for name in ("depth", "branching", "pairs", "first_tokens"):
        with pytest.raises(UsageError, match=name):
            settings(**{name: 0})
    for given in ({"segment_tokens": 300}, {"segment_tokens": 256}, {"first_tokens": 40}, {"first_tokens": 32}):
        with pytest.raises(UsageError, match="first_tokens < segment_tokens"):
            settings(**given)
    for wrong in ({"chain_fraction": 1.5}, {"chain_fraction": -0.1}, {"first_temperature": 0.0}, {"temperature": 0.0}):
        with pytest.raises(UsageError, match="setting of TreeRM"):
            TreeRM(**wrong)
    for share in (1.5, -0.1):
        with pytest.raises(UsageError, match="chain_fraction"):
            draw_pairs([], 1, share, Uniform(), np.random.default_rng(0))


def test_settings_at_their_bounds_are_taken() -> None:
    assert TreeRM(chain_fraction=0.0).chain_fraction == 0.0
    assert TreeRM(chain_fraction=1.0, depth=1, branching=1, pairs=1, first_tokens=1, segment_tokens=2, max_new_tokens=3).chain_fraction == 1.0
