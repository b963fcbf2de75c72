"""PPO: learns a toy, defaults, which critic is trained."""

import pytest

from finegrain.errors import UsageError
from finegrain.online.gae import GAE
from finegrain.online.groups import GroupNorm
from finegrain.online.leash import InReward
from finegrain.online.policy_loss import NoCritic, SeparateCritic, SharedCritic
from finegrain.online.ppo import PPO
from finegrain.online.whiten import WhitenUnbiased
from tests.online.toy import SEEDS, learn


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_what_is_rewarded(seed: int) -> None:
    """Within 100 updates from 0.06 to above 0.8, on whole answers and on tokens; with the rewards shuffled among answers it does not."""
    plain = learn(PPO(), leash=InReward(beta=0.01), seed=seed, rate=0.1)
    assert plain.rewards[-1] > 0.8
    assert plain.kl[0] == pytest.approx(0, abs=1e-6)
    assert plain.kl[-1] > 0.5
    assert learn(PPO(), leash=InReward(beta=0.01), seed=seed, rate=0.1, dense=True).rewards[-1] > 0.8
    shuffled = learn(PPO(), leash=InReward(beta=0.01), seed=seed, rate=0.1, shuffled=True)
    assert max(shuffled.rewards) < 0.2


def test_defaults() -> None:
    """TRL's: four passes, KL 0.05 in the reward, clips of 0.2, gamma 1, lam 0.95, values weigh 0.1, whitened."""
    stages = PPO().stages()
    loss = PPO().policy_loss(stages, temperature=0.7)
    assert (stages.leash, stages.advantage, stages.whitening) == (InReward(beta=0.05), GAE(gamma=1.0, lam=0.95), WhitenUnbiased())
    assert (PPO().updates, loss.surrogate.low, loss.surrogate.high) == (4, 0.2, 0.2)
    assert (loss.critic, loss.values, loss.single, loss.learning_rate, loss.temperature) == (
        SharedCritic(coefficient=0.1, clip=0.2),
        1,
        False,
        3e-6,
        0.7,
    )


def test_only_a_critic_that_is_read_is_trained() -> None:
    assert PPO().policy_loss(PPO().stages(advantage=GroupNorm())).values == 0
    separate = PPO(critic=SeparateCritic())
    assert separate.policy_loss(separate.stages()).values == 0
    with pytest.raises(UsageError, match="GAE reads values"):
        PPO(critic=NoCritic()).stages()
