"""AVA-d as a reward model: a token reward with uncertainty from demonstrations alone.

The policy that is trained with it is discarded; the score of an answer is its last token's mean reward.
Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 5 to 7; base: AVRIL, https://arxiv.org/abs/2102.06483.
Deviations: those of `finegrain.ops.bayesian_irl`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from finegrain.checked import checked
from finegrain.ops.reward_weight import weigh_pair
from finegrain.rewards.gaussian import EvidenceLoss, Gaussian
from finegrain.types import Pair, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class AvaD(EvidenceLoss):
    """Hyper-parameters of AVA-d."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    results: ClassVar[Mapping[str, bool]] = {"eval_td_nll": False}
    """Held-out results that show which of two models is better; True: higher is better."""

    def __call__(self, head: Gaussian, pair: Pair) -> Terms:
        """Likelihood, KL and temporal-difference terms."""
        answer = weigh_pair(head.reward_weight, pair).answer
        return {"likelihood": self.inference.demonstrated(answer), **self.inference.bound([answer], pair.state)}

    def measures(self, head: Gaussian, pair: Pair) -> dict[str, Tensor]:
        """For held-out answers: mean square of (temporal difference - mean) / std, and mean of -log q(temporal difference)."""
        answer = weigh_pair(head.reward_weight, pair).answer
        return {"td_square": self.inference.surprise(answer), "td_nll": self.inference.misfit(answer)}
