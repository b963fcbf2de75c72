"""wBC, weighted behaviour cloning: the likelihood of each answer, weighted by its reward.

    loss = R(x, y) N,   N = -sum over t of log pi(y_t)

Source: Wang et al. 2020, https://arxiv.org/abs/2006.15134 (number: memory), as the baseline in Baheti et al. 2023,
https://arxiv.org/abs/2305.14718, and their released code.
Deviations: rows with a reward of 0 or below are never drawn [choice], unless every row is read.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.objectives.reward_rows import REWARD, WeightedByReward
from finegrain.ops.sequence import sequence_logp
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
class WBC(WeightedByReward):
    """Hyper-parameters of wBC."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,), nats times reward."""
        return -pair.columns[REWARD] * sequence_logp(pair.answer)
