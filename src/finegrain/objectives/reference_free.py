"""Reference-free DPO: DPO's logistic loss with a uniform reference, which leaves only log-probabilities.

Source: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290; the authors' `preference_loss` with reference_free.
Deviations: none.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.margins import logp_margin
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class ReferenceFree:
    """Hyper-parameters of reference-free DPO."""

    needs: ClassVar[frozenset[str]] = frozenset()
    learning_rate: ClassVar[float] = 1e-6
    """That of DPO: the same link on the same scale."""

    beta: PositiveFloat = 0.1
    """Scale of the log-probability margin."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        return dpo_loss(logp_margin(pair), beta=self.beta)
