"""RRHF: a hinge at 0 on the difference of average log-probabilities, plus NLL of the chosen answer; no reference.

Source: Yuan et al. 2023, https://arxiv.org/abs/2304.05302, eq. 2 to 4 (numbers: memory).
Deviations: pairs alone, of which the chosen answer is the better; the NLL is a mean over tokens. The default rate is ours [choice].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import relu

from finegrain.checked import NonNegativeFloat, checked
from finegrain.objectives.margins import average_logp_margin
from finegrain.objectives.nll import nll_term
from finegrain.types import Pair, Term, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class RRHF:
    """Hyper-parameters of RRHF."""

    needs: ClassVar[frozenset[str]] = frozenset()
    learning_rate: ClassVar[float] = 1e-6
    """That of cpo and slic, whose two parts it has."""

    nll: NonNegativeFloat = 1.0
    """Weight of the NLL of the chosen answer per token; 0 leaves only the ranking."""

    def __call__(self, pair: Pair) -> Terms:
        """The ranking, nats per token and a mean over pairs; the NLL, a mean over chosen tokens."""
        ranking = relu(-average_logp_margin(pair))
        return {"ranking": Term(ranking, torch.ones_like(ranking)), "nll": nll_term(pair.chosen, coefficient=self.nll)}
