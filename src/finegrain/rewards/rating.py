"""A distribution over the classes of a rating scale, read at the answer's last token; its mean and standard deviation are the score's.

Source: the classifier heads of https://arxiv.org/abs/2403.00250, applied to rewards as the expected rating [choice].
Deviations: the head has no bias, as in every reward head here: base rates must come from the hidden state [choice].
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import MOST, PositiveFloat, Range, checked
from finegrain.ops.readout import Last
from finegrain.ops.sequence import to_wide
from finegrain.rewards.heads import Outputs, Readout
from finegrain.types import Scored


@dataclass(frozen=True, kw_only=True)
@checked
class Rating:
    """One logit per class of the scale."""

    readout: ClassVar[Readout] = Last()

    classes: Annotated[int, Range(2.0, MOST)] = 5
    """Number of ratings on the scale, in steps of one."""
    lowest: float = 1.0
    """The lowest rating: 1 for UltraFeedback, 0 for HelpSteer2."""
    temperature: PositiveFloat = field(default=1.0, compare=False)
    """Divides the logits when a score is computed, never in training; `loss:rating-labels --loss.calibrate` fits it."""

    @property
    def outputs(self) -> int:
        """One output per class."""
        return self.classes

    def tokens(self, outputs: Outputs) -> Scored:
        """Expected rating, in the scale's own numbers, and standard deviation of the predicted distribution."""
        chances = torch.softmax(to_wide(outputs) / self.temperature, -1)
        ratings = self.lowest + torch.arange(self.classes, device=outputs.device, dtype=chances.dtype)
        mean = chances @ ratings
        variance = (chances * (ratings - mean[..., None]).square()).sum(-1)
        return Scored(mean, variance.clamp(min=1e-12).sqrt())

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """All classes: the stock class gives their logits."""
        return weight
