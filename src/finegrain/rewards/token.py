"""One score per token, summed to the answer's score: a dense reward learned from labels of whole answers.

Source: the token-level reward model of Yang et al. 2023, https://arxiv.org/abs/2306.00398, eq. 4 to 6 (sum or mean of token
scores in the Bradley-Terry likelihood; number: memory); the minimum is the step-wise readout of Lightman et al. 2023.
Deviations: the readouts are settings of one head.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.ops.readout import Sum
from finegrain.rewards.heads import Outputs, Readout
from finegrain.types import Scored


@dataclass(frozen=True, kw_only=True)
@checked
class Token:
    """A scalar at every token; the answer's score is their readout."""

    outputs: ClassVar[int] = 1
    readout: Readout = field(default_factory=Sum)
    """How token scores are combined to the answer's: sum, mean, last or minimum. The sum found planted words best (benchmarks/results)."""

    def tokens(self, outputs: Outputs) -> Scored:
        """The scores themselves; their uncertainty is unknown."""
        return Scored(outputs[..., 0])

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The given row."""
        return weight
