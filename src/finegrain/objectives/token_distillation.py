"""Token reward distillation: regress each segment's beta * log-ratio on a scorer's reward, weighted by its certainty.

Source: ours; see docs/methods/token-distillation.md. One segment per answer is sequence-level reward
distillation: Fisch et al. 2024, https://arxiv.org/abs/2405.19316, eq. 6 (number: memory), on single answers.
Deviations: the whole method is ours [OURS].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.ops.masked import masked_sum
from finegrain.ops.segments import segment_length, segment_mean, segment_sum, segment_tokens
from finegrain.ops.sequence import to_wide
from finegrain.types import Pair, Side, Term, Terms, WeightMeaning


def segment_error(log_ratio: Float[Tensor, "B T"], reward: Float[Tensor, "B T"], segment: Int[Tensor, "B T"], *, beta: float) -> Float[Tensor, "B T"]:
    """At every token, beta * (sum of log-ratios) - (sum of rewards) of its segment; 0 where segment is -1."""
    return beta * segment_sum(log_ratio, segment) - segment_sum(reward, segment)


def distillation_term(side: Side, *, beta: float) -> Term:
    """sum_g c_g e_g^2 over the segments of each row with denominator sum_g c_g; c_g is the mean certainty (side.weight)."""
    if side.reward is None or side.ref_logp is None:
        raise ValueError("token-distillation needs a credit that writes token rewards, and reference log-probabilities")
    segment = torch.where(side.mask, segment_tokens(side.mask) if side.segment is None else side.segment, -1)
    log_ratio = torch.where(side.mask, to_wide(side.logp) - to_wide(side.ref_logp), 0.0)
    certainty = torch.ones_like(log_ratio) if side.weight is None else torch.where(side.mask, to_wide(side.weight), 0.0)
    share = segment_mean(certainty, segment) / segment_length(segment, certainty.dtype).clamp(min=1)
    error = segment_error(log_ratio, to_wide(side.reward), segment, beta=beta)
    return Term(masked_sum(share * error.square(), side.mask), masked_sum(share, side.mask))


@dataclass(frozen=True, kw_only=True)
@checked
class TokenDistillation:
    """Hyper-parameters of token reward distillation."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference", "reward"})
    learning_rate: ClassVar[float] = 1e-6
    """That of DPO [choice]: the same full fine-tuning from the same reference; not tuned."""
    weights: ClassVar[frozenset[WeightMeaning]] = frozenset({WeightMeaning.CERTAINTY, WeightMeaning.NOTHING})
    """Weights for the label of an answer are not accepted: they would leave out the bad parts of good answers, whose rewards are to be learned."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength: the optimum is reference * exp(reward / beta)."""

    def __call__(self, pair: Pair) -> Terms:
        """One term, a mean over segments weighted by certainty, from every side that has token rewards."""
        terms = [distillation_term(side, beta=self.beta) for side in pair.sides.values() if side.reward is not None]
        if not terms:
            raise ValueError("token-distillation needs a credit that writes token rewards; found none")
        value = torch.stack([term.value for term in terms]).sum(0)
        return {"distillation": Term(value, torch.stack([term.count for term in terms]).sum(0))}
