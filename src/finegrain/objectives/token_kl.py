"""Scores of answers from every position's log-ratio and KL(reference || policy), and what objectives made of them log.

    score = sum_t u_t rho_t + sum_t d_t KL_t

With u = d = 1 and times beta it is, up to a constant of the prompt, an answer's reward under the token-level regret model.
Source: https://arxiv.org/abs/2404.11999 and, with masks u and d, https://arxiv.org/abs/2410.05102.
Deviations: none.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import log_ratio, sequence_kl, to_wide
from finegrain.types import Pair, Side, Term, Terms

Weights = Float[Tensor, "B T"]


def regret_score(side: Side) -> Float[Tensor, " B"]:
    """sum_t w_t (rho_t + KL_t), nats."""
    return log_ratio(side) + sequence_kl(side)


def masked_score(side: Side, reward_mask: Weights, kl_mask: Weights) -> Float[Tensor, " B"]:
    """sum_t u_t rho_t + sum_t d_t KL_t, nats; token credit is not read."""
    if side.ref_logp is None or side.reference_kl is None:
        raise ValueError("a masked score needs reference log-probabilities and KL(reference || policy); pass a reference")
    ratio = torch.where(side.mask, to_wide(side.logp) - to_wide(side.ref_logp), 0.0)
    kl = torch.where(side.mask, to_wide(side.reference_kl), 0.0)
    return masked_sum(reward_mask * ratio + kl_mask * kl, side.mask)


def margin_measures(margin: Float[Tensor, " B"], *, beta: float) -> Terms:
    """Of pairs: beta times the margin that the loss compares with 0, and whether it is above."""
    one = torch.ones_like(margin)
    return {"score/margins": Term(beta * margin, one), "score/accuracies": Term((margin > 0).to(one.dtype), one)}


def side_measures(pair: Pair, *, beta: float) -> Terms:
    """Of each side: beta times its regret score, and its KL; under token credit also the KL that the credit keeps."""
    found: Terms = {}
    for role, side in pair.sides.items():
        score = regret_score(side)
        one = torch.ones_like(score)
        found |= {f"score/{role}": Term(beta * score, one), f"kl/{role}": whole_kl(side)}
        if side.weight is not None:
            found[f"kl/masked_{role}"] = Term(sequence_kl(side), one)
    return found


def whole_kl(side: Side) -> Term:
    """KL(reference || policy) of an answer, whatever credit or masks keep, nats."""
    assert side.reference_kl is not None
    kl = masked_sum(to_wide(side.reference_kl), side.mask)
    return Term(kl, torch.ones_like(kl))
