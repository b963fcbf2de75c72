"""AVA-d as a reward model: a token reward with uncertainty from demonstrations alone.

The policy that is trained with it is discarded; the score of an answer is its last token's mean reward.
Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 5 to 7; base: AVRIL, https://arxiv.org/abs/2102.06483.
Deviations: those of `finegrain.ops.bayesian_irl`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from finegrain.checked import checked
from finegrain.ops.action_values import Wanted
from finegrain.ops.bayesian_irl import Inference
from finegrain.ops.reward_weight import weigh_pair
from finegrain.rewards.gaussian import Gaussian
from finegrain.types import Initialisation, Pair, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class AvaD:
    """Hyper-parameters of AVA-d."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    head_kind: ClassVar[type] = Gaussian
    results: ClassVar[Mapping[str, bool]] = {"eval_td_nll": False}
    """Held-out results that show which of two models is better; True: higher is better."""

    inference: Inference = field(default_factory=Inference)
    """Weights and parts of the evidence bound."""

    def action_value(self, head: Gaussian) -> Wanted | None:
        """The Q-values that the scorer must compute, in addition to log-probabilities."""
        return self.inference.needs_logits(head.reward_weight)

    def __call__(self, head: Gaussian, pair: Pair) -> Terms:
        """Likelihood, KL and temporal-difference terms."""
        answer = weigh_pair(head.reward_weight, pair).answer
        return {"likelihood": self.inference.demonstrated(answer), **self.inference.bound([answer], pair.state)}

    def start(self, head: Gaussian) -> Initialisation | None:
        """The initialisation of prior and head."""
        return self.inference.start(head.reward_weight)

    def measures(self, head: Gaussian, pair: Pair) -> dict[str, Tensor]:
        """For held-out answers: mean square of (temporal difference - mean) / std, and mean of -log q(temporal difference)."""
        answer = weigh_pair(head.reward_weight, pair).answer
        return {"td_square": self.inference.surprise(answer), "td_nll": self.inference.misfit(answer)}
