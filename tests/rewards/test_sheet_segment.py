"""segment, what must hold: an answer without a peak, from entropies to token rewards. Test of rewards/segment.py."""

import torch

from finegrain.ops.location import EvenSplit, LocationNormaliser
from finegrain.ops.segments import place_in_row, segment_ends
from finegrain.ops.text_segmenters import EntropyCutoff
from finegrain.rewards.segment import cut_segments


def test_without_a_peak_the_tokens_share_one_reward_and_the_end_token_has_none() -> None:
    """Seven tokens: the end is token 5; r / 6 on each of tokens 0 to 5, 0 on the end token; at p = 1 the normaliser has its ends' values."""
    entropy, mask = torch.full((1, 7), 0.5), torch.ones(1, 7, dtype=torch.bool)
    ids = cut_segments(EntropyCutoff(cutoff=1000.0), entropy, mask)
    assert segment_ends(ids)[0].nonzero()[:, 0].tolist() == [5]
    rewards = torch.zeros(1, 7, dtype=torch.float64)
    rewards[0, 5], rewards[0, 6] = 3.0, 99.0
    phi = LocationNormaliser(mean_slope=0.7209, std_slope=0.2330, mean_at_end=0.6055, std_at_end=2.6555)
    normalised = phi(rewards, place_in_row(ids).double())
    dense = EvenSplit()(normalised, ids)
    expected = (3.0 - 0.6055) / 2.6555
    torch.testing.assert_close(dense, torch.tensor([[expected / 6] * 6 + [0.0]], dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(dense.sum(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)
