"""tree-rm, what must hold: how pairs were drawn changes their rows and not their loss. Test of curate/tree_rm.py."""

import torch

from finegrain.curate.tree import LeafPair, make_preference_row, saved_share
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.sequence import Sequence
from tests.rewards.sides import pair


def test_the_pair_loss_does_not_see_the_tree() -> None:
    """The same scores with and without the columns of a tree's row."""
    row = make_preference_row("hi", ["good day", "good dog"], LeafPair(0, 1, 1, 1), [0.5, 2.0], tree=4)
    told = {name: [float(row[name])] for name in ("tree_id", "lca_depth", "prefix_tokens", "prefix_chars", "score_difference", "tie")}
    chosen, rejected = [[[0.0], [1.5]]], [[[0.5]]]
    assert torch.equal(BradleyTerry()(Sequence(), pair(chosen, rejected, **told)), BradleyTerry()(Sequence(), pair(chosen, rejected)))


def test_saved_tokens() -> None:
    """1 - (length - prefix) / length of both responses together: lengths 4 and 6 with 3 shared need 4 of 10 tokens."""
    responses = ["abcd", "abcxyz"]
    assert saved_share(LeafPair(0, 1, 3, 1), responses) == 1 - ((4 - 3) + (6 - 3)) / (4 + 6)
    assert saved_share(LeafPair(0, 1, 0, 0), responses) == 0
