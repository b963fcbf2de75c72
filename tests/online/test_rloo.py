"""RLOO: learns a toy, reaches the policy that is best under its leash, defaults."""

import pytest

from finegrain.online.aggregate import SeqMeanTokenMean
from finegrain.online.groups import LeaveOneOut
from finegrain.online.leash import Free, InReward
from finegrain.online.rloo import RLOO
from finegrain.online.surrogates import SequenceClip
from tests.online.toy import SEEDS, best_under, learn


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_what_is_rewarded(seed: int) -> None:
    """Within 100 updates from 0.06 to above 0.8; with the rewards shuffled among answers it does not."""
    assert learn(RLOO(), leash=InReward(beta=0.01), seed=seed).rewards[-1] > 0.8
    assert max(learn(RLOO(), leash=InReward(beta=0.01), seed=seed, shuffled=True).rewards) < 0.2


def test_the_leash_holds_where_the_optimum_says() -> None:
    """With the KL in the reward at 0.05 the best mean reward is 0.45, and there it stays; without a leash it goes to 1."""
    assert best_under(0.05) == pytest.approx(0.448, abs=1e-3)
    late = learn(RLOO(), buffers=45, rate=0.2).rewards[20:]
    assert sum(late) / len(late) == pytest.approx(best_under(0.05), abs=0.06)
    assert learn(RLOO(), leash=Free()).rewards[-1] > 0.9


def test_defaults() -> None:
    """TRL 1.16's: KL 0.05 in the reward, no normalisation, the clip of the whole answer's ratio, a mean over answers."""
    stages = RLOO().stages()
    loss = RLOO().policy_loss(stages)
    assert (stages.leash, stages.advantage) == (InReward(beta=0.05), LeaveOneOut())
    assert (loss.surrogate, loss.aggregate, loss.values) == (SequenceClip(low=0.2, high=0.2), SeqMeanTokenMean(), 0)
