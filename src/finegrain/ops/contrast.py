"""The contrastive parts of AVA-p: the penalty of a rejected answer, and the ranking of the last tokens' rewards.

Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 13 (the minus term) and the CER auxiliary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.ops.bayesian_irl import Inference
from finegrain.ops.masked import masked_sum
from finegrain.ops.readout import last_value
from finegrain.ops.sequence import to_wide, token_weight
from finegrain.types import Pair, Term, Terms

Tokens = Float[Tensor, "B T"]

LARGEST_LOGP = -1e-6
"""Upper bound of log-probabilities in log(1 - p), which is undefined at p = 1."""


@dataclass(frozen=True, kw_only=True)
class Unlikelihood:
    """-log(1 - B): bounded below by 0, the term of the evidence bound itself."""

    def __call__(self, logp: Tokens, counted: Bool[Tensor, "B T"]) -> Tokens:
        """One value per token; 0 where it does not count."""
        safe = torch.where(counted, logp, -1.0).clamp(max=LARGEST_LOGP)
        return torch.where(counted, -torch.log(-torch.expm1(safe)), 0.0)


@dataclass(frozen=True, kw_only=True)
class Literal:
    """log B as printed in the paper: unbounded below, diverges as B goes to 0."""

    def __call__(self, logp: Tokens, counted: Bool[Tensor, "B T"]) -> Tokens:
        """One value per token; 0 where it does not count."""
        return torch.where(counted, logp, 0.0)


@dataclass(frozen=True, kw_only=True)
class WithoutNegative:
    """No penalty: the ablation."""

    def __call__(self, logp: Tokens, counted: Bool[Tensor, "B T"]) -> Tokens:
        """0 for every token."""
        return torch.zeros_like(logp)


@dataclass(frozen=True, kw_only=True)
class Sigmoid:
    """-sigma(d): the paper's form, whose gradient vanishes where a pair is badly mis-ordered."""

    def __call__(self, difference: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """One value per pair."""
        return -torch.sigmoid(difference)


@dataclass(frozen=True, kw_only=True)
class LogSigmoid:
    """-log sigma(d): Bradley-Terry."""

    def __call__(self, difference: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """One value per pair."""
        return -logsigmoid(difference)


Negative = Unlikelihood | Literal | WithoutNegative
Ranking = Sigmoid | LogSigmoid


def make_contrast_terms(inference: Inference, negative: Negative, ranking: Ranking, cer: float, pair: Pair) -> Terms:
    """All terms of AVA-p."""
    chosen, rejected = pair.chosen, pair.rejected
    assert chosen.outputs is not None
    assert rejected.outputs is not None
    counted, weight = inference.likelihood(rejected.mask), token_weight(rejected)
    costs = negative(inference.q_logp(rejected), counted)
    difference = last_value(to_wide(chosen.outputs[..., 0]), chosen.mask) - last_value(to_wide(rejected.outputs[..., 0]), rejected.mask)
    return {
        "likelihood": inference.demonstrated(chosen),
        "negative": Term(masked_sum(weight * costs, counted), masked_sum(weight, counted), inference.beta),
        **inference.bound([chosen, rejected], pair.state),
        "cer": Term(ranking(difference), torch.ones_like(difference), cer),
    }
