"""SLiC-HF: hinge loss on the log-probability margin, without reference, plus lambda times the chosen answers' NLL.

Source: Zhao et al. 2023, https://arxiv.org/abs/2305.10425, eq. 1 (number: memory); as `hinge` in TRL 1.16's CPO trainer.
Deviations: the regularisation target is the chosen answer (the paper also offers its best-ranked sample or SFT target).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.objectives.hinge import hinge_loss
from finegrain.objectives.margins import logp_margin
from finegrain.objectives.nll import nll_term
from finegrain.types import Pair, Term, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class SLiC:
    """Hyper-parameters of SLiC-HF."""

    needs: ClassVar[frozenset[str]] = frozenset()
    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for its CPO trainer, this loss included."""

    beta: PositiveFloat = 0.1
    """Inverse of the margin, in nats, above which a pair has no gradient."""
    nll: NonNegativeFloat = 1.0
    """The paper's lambda, weight of the NLL of the chosen answer per token (TRL's cpo_alpha); 0 leaves only the hinge."""

    def __call__(self, pair: Pair) -> Terms:
        """The hinge, a mean over pairs; the NLL, a mean over chosen tokens."""
        hinge = hinge_loss(logp_margin(pair), beta=self.beta)
        return {"hinge": Term(hinge, torch.ones_like(hinge)), "nll": nll_term(pair.chosen, coefficient=self.nll)}
