"""PPO: a critic's advantages, whitened, under a clipped ratio, several passes over each buffer, with the KL in the reward.

Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347; for language models Ziegler et al. 2019; defaults of TRL's PPO trainer.
Deviations: the reward stands on the last token, where TRL places it one place behind; the critic is a head on the policy, where TRL's is a model
of its own in the same loss.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from finegrain.checked import PositiveInt, checked
from finegrain.online.algorithm import Algorithm
from finegrain.online.gae import GAE
from finegrain.online.leash import InReward, Leash
from finegrain.online.policy_loss import Critic, SharedCritic
from finegrain.online.stages import Advantage
from finegrain.online.whiten import Whitening, WhitenUnbiased


@dataclass(frozen=True, kw_only=True)
@checked
class PPO(Algorithm):
    """Settings of PPO."""

    learning_rate: ClassVar[float] = 3e-6
    default_leash: ClassVar[Leash] = InReward(beta=0.05)
    default_advantage: ClassVar[Advantage] = GAE()

    epochs: PositiveInt = 4
    """Passes over a buffer."""
    critic: Critic = field(default_factory=SharedCritic)
    """Whose values an advantage with values reads."""
    whitening: Whitening = field(default_factory=WhitenUnbiased)
    """What is done to the advantages over all tokens of a buffer."""
