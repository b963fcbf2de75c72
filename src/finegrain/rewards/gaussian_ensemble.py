"""Several Gaussian heads on one backbone, each with a reward and its standard deviation, so that the most certain or the lowest can be selected.

Source: the multi-head reward model of Yan et al. 2024, https://arxiv.org/abs/2409.15360 (5 heads; from third-party digests).
Deviations: sd = softplus + 1e-4 [choice]; the score is the equal mixture of the members [choice], `finegrain.ops.aggregate` has the paper's
nominal, minimum and mixed rewards.
"""

from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from finegrain.checked import PositiveInt, checked
from finegrain.ops.readout import Last
from finegrain.ops.sequence import to_wide
from finegrain.rewards.heads import Outputs, Readout, combine_members, read_out
from finegrain.types import Scored

LEAST_STD = 1e-4


@dataclass(frozen=True, kw_only=True)
@checked
class GaussianEnsemble:
    """Mean and standard deviation of each member at every token."""

    members: PositiveInt = 5
    readout: Readout = field(default_factory=Last)
    """How token scores are combined to the answer's: sum, mean, last or minimum."""

    @property
    def outputs(self) -> int:
        """Two outputs per member: the mean, and the input of the standard deviation."""
        return 2 * self.members

    def tokens(self, outputs: Outputs) -> Scored:
        """The mixture of the members, their means and their standard deviations."""
        means, spreads = to_wide(outputs).movedim(-1, 0).chunk(2)
        return combine_members(means, softplus(spreads) + LEAST_STD)

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The mean of the members' mean rows."""
        return self.rows(weight).mean(0, keepdim=True)

    def rows(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "M H"]:
        """The row of each member's mean."""
        return weight[: self.members]

    def facts(self, outputs: Outputs, mask: Bool[Tensor, "B T"]) -> dict[str, Float[Tensor, " B"]]:
        """Logged per answer: the members' range, their mean standard deviation, and whether each is the most certain one."""
        score = read_out(self.readout, self.tokens(outputs), mask)
        assert score.members is not None
        assert score.member_std is not None
        surest = score.member_std.argmin(0)
        wins = {f"wins/{member}": (surest == member).to(score.mean.dtype) for member in range(self.members)}
        return {"spread": score.members.amax(0) - score.members.amin(0), "member_std": score.member_std.mean(0), **wins}
