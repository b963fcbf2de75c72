"""Mean and standard deviation per token: a reward that says how sure it is.

Source: the Gaussian reward head of https://arxiv.org/abs/2411.09341 (mu and log sd per token), as our sheet `ava` has it.
Deviations: log sd is clamped to -5 .. 2 [choice]: at zero width the likelihood explodes.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.ops.readout import Last
from finegrain.ops.variational import LOG_STD
from finegrain.rewards.heads import Outputs, Readout
from finegrain.types import Scored


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Mean and log standard deviation at every token."""

    outputs: ClassVar[int] = 2
    readout: Readout = field(default_factory=Last)
    """How token scores become the answer's: sum, mean, last or minimum."""

    def tokens(self, outputs: Outputs) -> Scored:
        """Mean and standard deviation."""
        return Scored(outputs[..., 0], outputs[..., 1].clamp(*LOG_STD).exp())

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The mean's row."""
        return weight[:1]
