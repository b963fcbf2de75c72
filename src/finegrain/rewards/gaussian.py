"""Mean and standard deviation per token: a reward with its uncertainty.

Source: the Gaussian reward head of https://arxiv.org/abs/2411.09341 (mu and log sd per token).
Deviations: log sd is clamped to -5 .. 2 [choice]: at zero width the likelihood diverges. Weights by attention are off by default [choice]; a stock
classifier ignores them and gives the mean before weighting.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finegrain.checked import checked
from finegrain.ops.action_values import Wanted
from finegrain.ops.bayesian_irl import Inference
from finegrain.ops.gaussian_layer import GaussianLayer
from finegrain.ops.readout import Last
from finegrain.ops.reward_weight import Attention, RewardWeight, Uniform
from finegrain.ops.variational import LOG_STD
from finegrain.rewards.heads import Mask, Outputs, Readout
from finegrain.types import Initialisation, Scored


@dataclass(frozen=True, kw_only=True)
@checked
class Gaussian:
    """Mean and log standard deviation at every token."""

    readout: Readout = field(default_factory=Last)
    """How token scores are combined to the answer's: sum, mean, last or minimum."""
    reward_weight: RewardWeight = field(default_factory=Uniform)
    """The factor on a token's mean and standard deviation: uniform, attention (eq. 11)."""

    @property
    def outputs(self) -> int:
        """Mean, log standard deviation, and the inputs of the weight."""
        return 2 + self.reward_weight.columns

    @property
    def module(self) -> Callable[[int, torch.Generator], nn.Module]:
        """(hidden size, generator) -> the layer: linear, with a bias on the log standard deviation."""
        return partial(GaussianLayer, self.outputs)

    @property
    def reads_whole_answer(self) -> bool:
        """Whether a token's score depends on later tokens."""
        return isinstance(self.reward_weight, Attention)

    def reweight_outputs(self, outputs: Outputs, mask: Mask) -> Float[Tensor, "B T L"]:
        """The outputs weighted over the whole answer."""
        return self.reward_weight(outputs, mask)

    def tokens(self, outputs: Outputs) -> Scored:
        """Mean and standard deviation, from outputs that are weighted or need no weight."""
        return Scored(outputs[..., 0], outputs[..., 1].clamp(*LOG_STD).exp())

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The mean's row, unweighted."""
        return weight[:1]


@dataclass(frozen=True, kw_only=True)
@checked
class EvidenceLoss:
    """What the losses of AVA-d and AVA-p declare alike."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    head_kind: ClassVar[type] = Gaussian

    inference: Inference = field(default_factory=Inference)
    """Weights and parts of the evidence bound."""

    def action_value(self, head: Gaussian) -> Wanted | None:
        """The Q-values that the scorer must compute, in addition to log-probabilities."""
        return self.inference.needs_logits(head.reward_weight)

    def start(self, head: Gaussian) -> Initialisation | None:
        """The initialisation of prior and head."""
        return self.inference.start(head.reward_weight)
