"""AVA-p: a policy and a token reward with uncertainty from preference pairs, by variational Bayesian inverse RL.

    minimise  -beta log B(y+) + negative(y-) + sum over both answers of [KL - lambda log q(delta)] + cer * ranking(mu_last(y+) - mu_last(y-))

Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 13, 14 and the CER auxiliary.
Deviations: the term of the rejected answer is bounded by default [choice]: the printed beta log B(y-) diverges, while the bound it
represents, log(1 - p), does not; and those of `finegrain.ops.bayesian_irl`.
"""

from dataclasses import dataclass
from typing import ClassVar

from finegrain.checked import checked
from finegrain.objectives.token_reward import TokenRewardPolicy
from finegrain.ops.balance import Balance
from finegrain.ops.bayesian_irl import BOUND
from finegrain.ops.contrast import ContrastSettings, Literal
from finegrain.ops.reward_weight import weigh_pair
from finegrain.types import Pair, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class AvaP(ContrastSettings, TokenRewardPolicy):
    """Hyper-parameters of AVA-p."""

    learning_rate: ClassVar[float] = 1e-6
    """[choice] That of `dpo`; the paper's is unknown to us."""

    def __call__(self, pair: Pair) -> Terms:
        """Likelihood, negative, KL, temporal-difference and CER terms."""
        return self._terms(self.inference, weigh_pair(self.reward_weight, pair))

    @property
    def unbounded(self) -> str:
        """The literal negative is."""
        return "negative:literal falls for ever as the rejected answer's likelihood does" if isinstance(self.negative, Literal) else ""

    @property
    def balanced(self) -> Balance:
        """All terms except the ranking share one weight; without a ranking each has its given weight."""
        return Balance(bound=BOUND, rule=self.balance)
