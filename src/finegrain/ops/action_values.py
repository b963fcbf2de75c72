"""Q-values of taken tokens from logits over the vocabulary, and the log-probability of the policy they imply, chunk by chunk.

Source: https://arxiv.org/abs/2411.09341, eq. 12 and the ablation of the Q head.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from finegrain.checked import PositiveFloat, checked
from finegrain.ops.logprobs import OutputLayer, chunk_rows
from finegrain.ops.reward_weight import Attention
from finegrain.types import chunks

Logits = Float[Tensor, "M V"]
Targets = Int[Tensor, " M"]


class ActionValues(NamedTuple):
    """Values of M taken tokens."""

    q: Float[Tensor, " M"]
    """Q(s, a), in the units of the reward."""
    logp: Float[Tensor, " M"]
    """log softmax(Q(s, .))[a], nats: the demonstrator's policy."""


@dataclass(frozen=True, kw_only=True)
@checked
class NormalisedForm:
    """Q-values that are log-probabilities: one value is both Q and the policy's log-probability."""

    fresh: ClassVar[bool] = False
    alpha: PositiveFloat = 1.0
    """Inverse temperature."""

    def __call__(self, logits: Logits, targets: Targets) -> ActionValues:
        """Values of the taken tokens."""
        q = _at(self.values(logits), targets)
        return ActionValues(q, q)

    @abstractmethod
    def values(self, logits: Logits) -> Logits:
        """Q of every token of the vocabulary."""


@dataclass(frozen=True, kw_only=True)
@checked
class LogProb(NormalisedForm):
    """Q = log softmax(alpha log pi): alpha 1 gives log pi itself, and the temporal differences of an answer telescope."""

    def values(self, logits: Logits) -> Logits:
        """Q of every token of the vocabulary."""
        return torch.log_softmax(self.alpha * torch.log_softmax(logits, -1), -1)


@dataclass(frozen=True, kw_only=True)
@checked
class SoftmaxProb(NormalisedForm):
    """Q = log softmax(alpha pi), over probabilities as printed in the paper: nearly uniform unless alpha is large."""

    alpha: PositiveFloat = 100.0
    """Inverse temperature; the paper gives no value [choice]."""

    def values(self, logits: Logits) -> Logits:
        """Q of every token of the vocabulary."""
        return torch.log_softmax(self.alpha * torch.softmax(logits, -1), -1)


@dataclass(frozen=True, kw_only=True)
class RawLogits:
    """Q = the logits of the language model's head: a constant added to all of a state's changes Q but not the policy."""

    fresh: ClassVar[bool] = False

    def __call__(self, logits: Logits, targets: Targets) -> ActionValues:
        """The logit, and the policy's log-probability."""
        return ActionValues(_at(logits, targets), _at(torch.log_softmax(logits, -1), targets))

    def values(self, logits: Logits) -> Logits:
        """The logits."""
        return logits


@dataclass(frozen=True, kw_only=True)
class FreshHead(RawLogits):
    """Q = the logits of a newly initialised head: the paper's ablation without a pre-trained Q head."""

    fresh: ClassVar[bool] = True


QForm = LogProb | SoftmaxProb | RawLogits | FreshHead


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """w_t Q_t: the Q-values of a token's state times the token's weight from the reward's outputs (eq. 11)."""

    form: QForm
    weight: Attention

    @property
    def fresh(self) -> bool:
        """The form's."""
        return self.form.fresh

    def __call__(self, logits: Logits, targets: Targets, weight: Float[Tensor, " M"]) -> ActionValues:
        """w Q(s, a), and log softmax(w Q(s, .))[a]."""
        values = weight.to(logits.dtype)[:, None] * self.form.values(logits)
        return ActionValues(_at(values, targets), _at(torch.log_softmax(values, -1), targets))


Wanted = QForm | Weighed
"""How Q-values are computed from logits, and from weights if any."""


def action_values(
    hidden: Float[Tensor, "M H"], head: OutputLayer, targets: Targets, form: Wanted, weight: Float[Tensor, " M"] | None = None
) -> ActionValues:
    """Values of the taken tokens; logits of one chunk at a time, recomputed in the backward pass."""
    rows = chunk_rows(head.weight)
    parts = [
        checkpoint(_chunk, hidden[part], head, targets[part], form, None if weight is None else weight[part], use_reentrant=False)
        for part in chunks(len(targets), rows)
    ]
    return ActionValues(torch.cat([part.q for part in parts]), torch.cat([part.logp for part in parts]))


def _chunk(hidden: Tensor, head: OutputLayer, targets: Tensor, form: Wanted, weight: Tensor | None) -> ActionValues:
    """Values of one chunk, float32 or wider."""
    scaled = hidden * head.scale
    autocast = torch.is_autocast_enabled(hidden.device.type)
    logits = torch.nn.functional.linear(scaled, head.weight if autocast else head.weight.to(torch.promote_types(scaled.dtype, head.weight.dtype)))
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if head.bias is not None:
        logits = logits + head.bias
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    if isinstance(form, Weighed):
        assert weight is not None, "weighted Q-values need the weights of the tokens"
        return form(logits, targets, weight)
    return form(logits, targets)


def _at(values: Tensor, targets: Tensor) -> Tensor:
    return values.gather(-1, targets[:, None])[:, 0]
