"""One score per token, summed to the answer's score: a dense reward learned from labels of whole answers, or of the tokens themselves.

Source: the token-level reward model of Yang et al. 2023, https://arxiv.org/abs/2306.00398, eq. 4 to 6 (sum or mean of token
scores in the Bradley-Terry likelihood; number: memory); the minimum is the step-wise readout of Lightman et al. 2023.
Deviations: the readouts are settings of one head; an output per aspect, with the weighted sum as the token's score, is ours [OURS].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.errors import UsageError
from finegrain.ops.readout import Sum
from finegrain.ops.sequence import to_wide
from finegrain.rewards.heads import Mask, Outputs, Readout
from finegrain.types import Scored


class SpanLoss:
    """A loss that learns every aspect of a token head from annotators' spans."""


@dataclass(frozen=True, kw_only=True)
@checked
class Token:
    """A scalar at every token; the answer's score is their readout."""

    readout: Readout = field(default_factory=Sum)
    """How token scores are combined to the answer's: sum, mean, last or minimum. The sum found planted words best (benchmarks/results)."""
    aspects: tuple[str, ...] = ()
    """Aspects of annotators' spans that have an output each; by default one output for all."""
    weights: tuple[float, ...] = ()
    """Weight of each aspect in a token's score; by default their mean."""

    def __post_init__(self) -> None:
        if len(set(self.aspects)) < len(self.aspects) or not all(self.aspects):
            raise UsageError(f"--head.aspects must name each aspect once; got {', '.join(self.aspects)}")
        if self.weights and len(self.weights) != len(self.aspects):
            raise UsageError(f"--head.weights needs one number per aspect, got {len(self.weights)} for {len(self.aspects)} aspects")
        if self.weights and not any(self.weights):
            raise UsageError("--head.weights are all 0, so every token would have the score 0")

    @property
    def outputs(self) -> int:
        """One, or one per aspect."""
        return max(1, len(self.aspects))

    @property
    def loss_kind(self) -> type:
        """With aspects, the losses that tell them apart."""
        return SpanLoss if self.aspects else object

    def tokens(self, outputs: Outputs) -> Scored:
        """The scores themselves, or the weighted sum over aspects; their uncertainty is unknown."""
        if not self.aspects:
            return Scored(outputs[..., 0])
        values = to_wide(outputs)
        return Scored(values @ self._mix(values))

    def _mix(self, like: Tensor) -> Float[Tensor, " K"]:
        """The weight of each aspect."""
        weights = self.weights or (1 / len(self.aspects),) * len(self.aspects)
        return torch.tensor(weights, dtype=like.dtype, device=like.device)

    def token_aspects(self, outputs: Outputs) -> Mapping[str, Float[Tensor, "B T"]]:
        """Each aspect's score of the tokens, by name."""
        return {name: outputs[..., place] for place, name in enumerate(self.aspects)}

    def attributes(self, outputs: Outputs, mask: Mask) -> Mapping[str, Float[Tensor, " B"]]:
        """Each aspect's score of the answers, by name."""
        return {name: self.readout(outputs[..., place], mask) for place, name in enumerate(self.aspects)}

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The given row, or the weighted sum of the aspects' rows."""
        return (self._mix(weight) @ weight)[None] if self.aspects else weight
