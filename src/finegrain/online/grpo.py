"""GRPO: the reward of an answer against those of the other answers to its prompt, over their standard deviation; no critic.

Source: Shao et al. 2024 (DeepSeekMath), https://arxiv.org/abs/2402.03300; defaults of TRL 1.16's GRPOTrainer: no KL, and a mean over all tokens
of the step (its loss type "dapo").
Deviations: an answer of which no token trains counts in no divisor.
"""

from dataclasses import dataclass
from typing import ClassVar

from finegrain.checked import checked
from finegrain.online.algorithm import Algorithm
from finegrain.online.groups import GroupNorm
from finegrain.online.leash import Free, Leash
from finegrain.online.stages import Advantage


@dataclass(frozen=True, kw_only=True)
@checked
class GRPO(Algorithm):
    """Settings of GRPO."""

    learning_rate: ClassVar[float] = 1e-6
    default_leash: ClassVar[Leash] = Free()
    default_advantage: ClassVar[Advantage] = GroupNorm()
