"""GRPO: learns a toy, defaults, settings that are other methods."""

import pytest

from finegrain.errors import UsageError
from finegrain.online.aggregate import TokenMean
from finegrain.online.gae import GAE
from finegrain.online.groups import Centred, GroupNorm
from finegrain.online.grpo import GRPO
from finegrain.online.leash import Free
from tests.online.toy import SEEDS, learn


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_what_is_rewarded(seed: int) -> None:
    """Within 100 updates from 0.06 to above 0.8; with the rewards shuffled among answers it does not."""
    assert learn(GRPO(), seed=seed).rewards[-1] > 0.8
    assert max(learn(GRPO(), seed=seed, shuffled=True).rewards) < 0.2


def test_defaults() -> None:
    """TRL 1.16's: no KL, a mean over all tokens, 1e-4 beside the standard deviation, one update per buffer."""
    stages = GRPO().stages()
    loss = GRPO().policy_loss(stages)
    assert (stages.leash, stages.advantage) == (Free(), GroupNorm(epsilon=1e-4))
    assert (loss.aggregate, loss.needs, loss.values, loss.single) == (TokenMean(), {"logp", "sampled"}, 0, True)
    assert not GRPO(minibatches=2).policy_loss(stages).single


def test_an_advantage_with_values_needs_a_critic() -> None:
    with pytest.raises(UsageError, match="GAE reads values"):
        GRPO().stages(advantage=GAE())


def test_density_is_warned_about() -> None:
    assert "centred" in GRPO().stages().check_density(True)[0]
    assert GRPO().stages(advantage=GroupNorm(tokens=Centred())).check_density(True) == []
