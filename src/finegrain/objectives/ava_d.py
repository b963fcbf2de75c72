"""AVA-d: a policy and a token reward with uncertainty from demonstrations alone, by variational Bayesian inverse RL.

Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 5 to 7; base: AVRIL, https://arxiv.org/abs/2102.06483.
Deviations: those of `finegrain.ops.bayesian_irl`.
"""

from dataclasses import dataclass
from typing import ClassVar

from finegrain.checked import checked
from finegrain.objectives.token_reward import TokenRewardPolicy
from finegrain.ops.reward_weight import weigh_pair
from finegrain.types import Pair, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class AvaD(TokenRewardPolicy):
    """Hyper-parameters of AVA-d."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    learning_rate: ClassVar[float] = 2e-5
    """[choice] That of `nll`, which it extends; the paper's is unknown to us."""

    def __call__(self, pair: Pair) -> Terms:
        """Likelihood, KL and temporal-difference terms."""
        answer = weigh_pair(self.reward_weight, pair).answer
        return {"likelihood": self.inference.demonstrated(answer), **self.inference.bound([answer], pair.state)}
