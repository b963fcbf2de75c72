"""GOLD with a reward: the likelihood of each token, weighted by the answer's reward and by the policy's own probability of the token.

    loss = R(x, y) sum over t of max(pi(y_t), floor) nll_t;   the probability carries no gradient

Source: Pang and He 2020, https://arxiv.org/abs/2009.07839 (number: memory), as the baseline "reward GOLD" in Baheti et al. 2023,
https://arxiv.org/abs/2305.14718, and their released code.
Deviations: rows with a reward of 0 or below are never drawn [choice], unless every row is read.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import Share, checked
from finegrain.objectives.reward_rows import REWARD, WeightedByReward
from finegrain.ops.sequence import to_wide, weighted_sum
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class GOLD(WeightedByReward):
    """Hyper-parameters of GOLD."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})

    floor: Share = 0.1
    """The least weight of a token."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,), nats times reward."""
        logp = torch.where(pair.answer.mask, to_wide(pair.answer.logp), 0.0)
        return -pair.columns[REWARD] * weighted_sum(logp.detach().exp().clamp(min=self.floor) * logp, pair.answer)
