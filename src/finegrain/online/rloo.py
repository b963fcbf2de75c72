"""RLOO: the reward of an answer, KL included, minus the mean of the other answers to its prompt; no critic.

Source: Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740; defaults of TRL 1.16's RLOOTrainer, which clips the ratio of the whole answer.
Deviations: the KL of an answer is summed before the leave-one-out, as in TRL; OpenRLHF's form is
`advantage:leave-one-out advantage.tokens:leash-to-go`.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from finegrain.checked import checked
from finegrain.online.aggregate import Aggregate, SeqMeanTokenMean
from finegrain.online.algorithm import Algorithm
from finegrain.online.groups import LeaveOneOut
from finegrain.online.leash import InReward, Leash
from finegrain.online.stages import Advantage
from finegrain.online.surrogates import SequenceClip, Surrogate


@dataclass(frozen=True, kw_only=True)
@checked
class RLOO(Algorithm):
    """Settings of RLOO."""

    learning_rate: ClassVar[float] = 1e-6
    default_leash: ClassVar[Leash] = InReward(beta=0.05)
    default_advantage: ClassVar[Advantage] = LeaveOneOut()

    surrogate: Surrogate = field(default_factory=SequenceClip)
    """Loss of a token by its ratio to the policy that sampled."""
    aggregate: Aggregate = field(default_factory=SeqMeanTokenMean)
    """How losses of tokens are averaged."""
