"""R-LoL: a-lol with the reward itself in place of the advantage, so that no value has to be fitted.

    loss = R(x, y) clip(pi(y) / ref(y)) N,   N = -sum over t of log pi(y_t);   the ratio carries no gradient

Source: Baheti et al. 2023, https://arxiv.org/abs/2305.14718, and the authors' released code.
Deviations: rows with a reward of 0 or below are never drawn [choice], unless every row is read.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, checked
from finegrain.objectives.alol import Ratio
from finegrain.objectives.reward_rows import REWARD, WeightedByReward
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class RLoL(WeightedByReward):
    """Hyper-parameters of R-LoL."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    learning_rate: ClassVar[float] = 2e-6
    """That of alol, for the same ratio [choice]."""

    clip: NonNegativeFloat | None = 0.9
    """The ratio lies in [1 - clip, 1 + clip]; None: not clipped."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,), nats times reward."""
        return Ratio(clip=self.clip)(pair.answer, pair.columns[REWARD])
