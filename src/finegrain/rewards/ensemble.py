"""Several heads on one backbone, each trained with its own weights of the pairs: their standard deviation is the uncertainty.

Source: the shared-backbone ensembles of https://arxiv.org/abs/2409.15360 (5 heads; from third-party digests).
Deviations: members differ by initialisation and by a Bayesian bootstrap of the pairs [choice]: weights drawn from Exp(1) per pair and member.
"""

from dataclasses import dataclass, field
from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import MOST, Range, checked
from finegrain.ops.readout import Last
from finegrain.rewards.heads import Outputs, Readout, combine_members
from finegrain.types import Scored


@dataclass(frozen=True, kw_only=True)
@checked
class Ensemble:
    """A scalar per member at every token."""

    members: Annotated[int, Range(2.0, MOST)] = 5
    readout: Readout = field(default_factory=Last)
    """How token scores are combined to the answer's: sum, mean, last or minimum."""

    @property
    def outputs(self) -> int:
        """One output per member."""
        return self.members

    def tokens(self, outputs: Outputs) -> Scored:
        """Mean and standard deviation (ddof 1) over the members, and the members."""
        return combine_members(outputs.movedim(-1, 0))

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The mean of the members' rows."""
        return weight.mean(0, keepdim=True)

    def rows(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "M H"]:
        """The row of each member."""
        return weight
