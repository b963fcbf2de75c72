"""One score per answer, read at its last token: the standard reward model.

Source: Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, section 3.5 (a scalar output in place of the vocabulary's).
Deviations: none.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.ops.readout import Last
from finegrain.rewards.heads import Outputs, Readout
from finegrain.types import Scored


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """A scalar at the last token of the answer."""

    outputs: ClassVar[int] = 1
    readout: ClassVar[Readout] = Last()

    def tokens(self, outputs: Outputs) -> Scored:
        """The score that the answer would have if it ended at each token; the model was only trained at the last one."""
        return Scored(outputs[..., 0])

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The given row."""
        return weight
