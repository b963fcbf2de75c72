"""Negative log-likelihood of the answers' tokens: supervised fine-tuning, and the regulariser of CPO and SLiC.

Source: Ouyang et al. 2022 (InstructGPT), https://arxiv.org/abs/2203.02155, section 3.5 step 1 (number: memory).
Deviations: the mean is over all trained tokens of the optimiser step, not per micro-batch; under token credit it is
weighted, and divides by the kept weight.
"""

from dataclasses import dataclass
from typing import ClassVar

from finegrain.ops.sequence import kept_weight, sequence_logp
from finegrain.types import Pair, Side, Term, Terms


def nll_term(side: Side, *, coefficient: float = 1.0) -> Term:
    """-sum_t w_t log pi(y_t) with denominator sum_t w_t: a mean over kept tokens, nats per token."""
    return Term(-sequence_logp(side), kept_weight(side), coefficient)


@dataclass(frozen=True, kw_only=True)
class NLL:
    """Supervised fine-tuning has no hyper-parameters of its own."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    needs: ClassVar[frozenset[str]] = frozenset()
    learning_rate: ClassVar[float] = 2e-5
    """The field's default for full supervised fine-tuning (TRL's SFT trainer)."""

    def __call__(self, pair: Pair) -> Terms:
        """One term, a mean over tokens."""
        return {"nll": nll_term(pair.answer)}
