"""How much each token's Q-value and reward count: uniformly, or by the attention that the answer's tokens pay to it.

    w_t = (1 / |y|) sum_i softmax_t'(q_i . k_t')_t        a distribution over the answer's tokens

Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 11.
Deviations: q and k are trainable linear maps of the hidden states that have read the tokens [choice; not in the main text], i and t' run
over the answer's tokens [choice], and w is multiplied by |y| by default [choice]. w_t depends on later tokens, so a policy cannot use
it during generation.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.checked import PositiveInt, checked
from finegrain.ops.sequence import to_wide
from finegrain.types import Pair, Side

Outputs = Float[Tensor, "B T K"]
Mask = Bool[Tensor, "B T"]
Weights = Float[Tensor, "B T"]


@dataclass(frozen=True, kw_only=True)
class MeanOne:
    """Times |y|: the mean weight of an answer's tokens is 1, whatever its length [choice]."""

    def __call__(self, received: Weights, mask: Mask) -> Weights:
        """Attention received, summed over the queries."""
        return received


@dataclass(frozen=True, kw_only=True)
class SumOne:
    """As printed: the weights of an answer sum to 1, so a long answer has small rewards and a flat policy."""

    def __call__(self, received: Weights, mask: Mask) -> Weights:
        """Attention received, averaged over the queries."""
        return received / mask.sum(1, keepdim=True).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """1 for every token; no further outputs."""

    columns: ClassVar[int] = 0

    def weights(self, outputs: Outputs, mask: Mask) -> Weights:
        """Ones."""
        return torch.ones_like(to_wide(outputs[..., 0]))

    def __call__(self, outputs: Outputs, mask: Mask) -> Outputs:
        """Mean and log standard deviation, unchanged."""
        return outputs


@dataclass(frozen=True, kw_only=True)
@checked
class Attention:
    """Eq. 11: attention of the answer's tokens, over q and k that are further outputs of the head."""

    width: PositiveInt = 16
    """Length of q and of k [choice]; the head has twice as many further outputs."""
    scale: MeanOne | SumOne = field(default_factory=MeanOne)
    """Normalisation of an answer's weights: mean-one [choice], sum-one (as printed)."""

    @property
    def columns(self) -> int:
        """Outputs per token beside mean and log standard deviation."""
        return 2 * self.width

    def weights(self, outputs: Outputs, mask: Mask) -> Weights:
        """w_t on the answer's tokens, 0 elsewhere. Float32 or wider."""
        query, key = torch.where(mask[..., None], to_wide(outputs[..., -self.columns :]), 0.0).chunk(2, -1)
        scores = torch.where(mask[:, None], query @ key.transpose(1, 2), torch.finfo(query.dtype).min)
        attention = torch.where(mask[:, :, None] & mask[:, None], scores.softmax(-1), 0.0)
        return self.scale(attention.sum(1), mask)

    def __call__(self, outputs: Outputs, mask: Mask) -> Float[Tensor, "B T 2"]:
        """(B, T, 2): mean and log standard deviation of w_t times the reward. Float32 or wider."""
        weight = self.weights(outputs, mask)
        mean, log_std = (torch.where(mask, to_wide(outputs[..., place]), 0.0) for place in (0, 1))
        smallest = torch.finfo(weight.dtype).tiny
        return torch.stack([weight * mean, log_std + weight.clamp(min=smallest).log()], -1)


RewardWeight = Uniform | Attention


def weigh_pair(reward_weight: RewardWeight, pair: Pair) -> Pair:
    """The pair with every side's reward outputs weighted over its whole answer."""
    return replace(pair, sides={role: _side(reward_weight, side) for role, side in pair.sides.items()})


def _side(reward_weight: RewardWeight, side: Side) -> Side:
    assert side.outputs is not None, "the reward's outputs were not requested"
    return replace(side, outputs=reward_weight(side.outputs, side.mask))
