"""Contrastive preference optimisation (CPO): reference-free DPO plus the NLL of the chosen answers.

Source: Xu et al. 2024, https://arxiv.org/abs/2401.08417, eq. 3 to 5 (number: memory); NLL per chosen token as in TRL 1.16.
Deviations: none.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.margins import logp_margin
from finegrain.objectives.nll import nll_term
from finegrain.types import Pair, Term, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class CPO:
    """Hyper-parameters of CPO."""

    needs: ClassVar[frozenset[str]] = frozenset()
    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for its CPO trainer."""

    beta: PositiveFloat = 0.1
    """Scale of the log-probability margin."""
    nll: NonNegativeFloat = 1.0
    """Weight of the NLL of the chosen answer per token (TRL's cpo_alpha); 0 is reference-free DPO."""

    def __call__(self, pair: Pair) -> Terms:
        """The preference loss, a mean over pairs; the NLL, a mean over chosen tokens."""
        preference = dpo_loss(logp_margin(pair), beta=self.beta)
        return {"preference": Term(preference, torch.ones_like(preference)), "nll": nll_term(pair.chosen, coefficient=self.nll)}
