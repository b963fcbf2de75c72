"""AVA-d as a reward model: a token reward with uncertainty from demonstrations alone.

The policy that is trained along is thrown away; the score of an answer is its last token's mean reward.
Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 5 to 7; base: AVRIL, https://arxiv.org/abs/2102.06483.
Deviations: those of `finegrain.ops.bayesian_irl`.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from finegrain.ops.action_values import QForm
from finegrain.ops.bayesian_irl import Inference
from finegrain.rewards.heads import RewardHead
from finegrain.types import Pair, Terms


@dataclass(frozen=True, kw_only=True)
class AvaD:
    """Hyper-parameters of AVA-d."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    head_outputs: ClassVar[int] = 2

    inference: Inference = field(default_factory=Inference)
    """Weights and parts of the evidence bound."""

    @property
    def action_value(self) -> QForm | None:
        """What the scorer has to compute beside log-probabilities."""
        return self.inference.needs_logits()

    def __call__(self, head: RewardHead, pair: Pair) -> Terms:
        """Likelihood, KL and temporal-difference terms."""
        return {"likelihood": self.inference.demonstrated(pair.answer), **self.inference.bound([pair.answer])}
