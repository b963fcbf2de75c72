"""REINFORCE++: learns a toy, defaults, its form with a baseline."""

import pytest

from finegrain.online.gae import Returns
from finegrain.online.groups import GroupMean
from finegrain.online.leash import InReward
from finegrain.online.reinforce_pp import ReinforcePP
from finegrain.online.stages import compute_update
from finegrain.online.whiten import WhitenBiased
from tests.online.rollouts import make_rollout
from tests.online.toy import SEEDS, learn


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_what_is_rewarded(seed: int) -> None:
    """Within 100 updates from 0.06 to above 0.8, on whole answers and on tokens; with the rewards shuffled among answers it does not."""
    assert learn(ReinforcePP(), seed=seed).rewards[-1] > 0.8
    assert learn(ReinforcePP(), seed=seed, dense=True).rewards[-1] > 0.8
    assert max(learn(ReinforcePP(), seed=seed, shuffled=True).rewards) < 0.2


def test_defaults() -> None:
    """OpenRLHF's: KL 0.01 in the reward, undiscounted, biased whitening over the buffer."""
    stages = ReinforcePP().stages()
    assert (stages.leash, stages.advantage, stages.whitening) == (InReward(beta=0.01), Returns(gamma=1.0), WhitenBiased())


@pytest.mark.parametrize("advantage", [Returns(), GroupMean()])
def test_advantages_are_whitened_over_the_buffer(advantage: Returns | GroupMean) -> None:
    rollout = make_rollout()
    stages = ReinforcePP().stages(advantage=advantage)
    live = rollout.mask & rollout.judged[:, None]
    found = compute_update(rollout, stages, stages.start()).advantage[live]
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found.square().mean()) == pytest.approx(1)
