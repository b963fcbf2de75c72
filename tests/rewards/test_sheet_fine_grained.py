"""fine-grained, what must hold: the limits in which it is the segment reward of single tokens, and the sparse reward.

Test of rewards/fine_grained.py.
"""

from dataclasses import replace

import torch

from finegrain.credit.redistribute import sparse_reward
from finegrain.online.gae import gae
from finegrain.online.kl_penalty import subtract_kl_penalty
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.fine_grained import FineGrained, Identity, PerToken
from finegrain.rewards.segment import Segment
from finegrain.rewards.token import Token
from finegrain.types import Pair
from tests.rewards.sides import pair


def test_identity_is_the_segment_reward_of_single_tokens() -> None:
    """One segment per token, the end token's included."""
    plain = pair([[[1.0], [2.0], [0.5]], [[4.0]]], [[[3.0], [-4.0]], [[1.0], [2.0], [-0.5]]])
    sides = {}
    for role, side in plain.sides.items():
        place = torch.arange(side.mask.shape[1]).expand_as(side.mask)
        sides[role] = replace(side, weight=side.mask.double(), segment=torch.where(side.mask, place, -1))
    edited = Pair(sides=sides, columns=plain.columns)
    got = FineGrained(regulariser=0.0, unchanged=Identity(), denominator=PerToken())(Token(), edited)["edits"].value
    torch.testing.assert_close(got, BradleyTerry()(Segment(), edited), rtol=0, atol=1e-12)


def test_a_reward_on_the_last_token_alone_is_the_sparse_reward() -> None:
    generator = torch.Generator().manual_seed(0)
    logp, ref_logp, values = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    total = torch.tensor([1.5, -0.7], dtype=torch.float64)
    rewards = torch.zeros(2, 5, dtype=torch.float64)
    rewards[0, 4], rewards[1, 2] = total
    assert torch.equal(rewards, sparse_reward(total, mask))
    found = [
        gae(subtract_kl_penalty(each, logp, ref_logp, mask, coefficient=0.02), values, mask, gamma=1.0, lam=0.95)
        for each in (rewards, sparse_reward(total, mask))
    ]
    assert torch.equal(found[0].advantages, found[1].advantages)
    whole = gae(subtract_kl_penalty(rewards, logp, logp, mask, coefficient=0.02), torch.zeros_like(values), mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(whole.returns[:, 0], total, rtol=0, atol=1e-12)
