"""REINFORCE++: the reward to go of every token, KL included, whitened over the buffer; no critic and no groups.

Source: Hu et al. 2025, https://arxiv.org/abs/2501.03262; defaults of OpenRLHF.
Deviations: the whitening is over the buffer, whatever the minibatches.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from finegrain.checked import checked
from finegrain.online.algorithm import Algorithm
from finegrain.online.gae import Returns
from finegrain.online.leash import InReward, Leash
from finegrain.online.stages import Advantage
from finegrain.online.whiten import WhitenBiased, Whitening


@dataclass(frozen=True, kw_only=True)
@checked
class ReinforcePP(Algorithm):
    """Settings of REINFORCE++."""

    learning_rate: ClassVar[float] = 5e-7
    default_leash: ClassVar[Leash] = InReward(beta=0.01)
    default_advantage: ClassVar[Advantage] = Returns()

    whitening: Whitening = field(default_factory=WhitenBiased)
    """What is done to the advantages over all tokens of a buffer."""
