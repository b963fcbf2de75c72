"""The contrastive parts of AVA-p: the penalty of a rejected answer, and the ranking of the last tokens' rewards.

Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 13 (the minus term) and the CER auxiliary.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import NonNegativeFloat, checked
from finegrain.ops.balance import BalanceRule, StartShare
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


@dataclass(frozen=True, kw_only=True)
@checked
class ContrastSettings:
    """Settings of AVA-p beside those of the bound, for the policy and for the reward model."""

    negative: Negative = field(default_factory=Unlikelihood)
    """Term of the rejected answer: unlikelihood (bounded) [choice], literal (as printed), without-negative (the ablation)."""
    ranking: Ranking = field(default_factory=Sigmoid)
    """CER on the last tokens' mean rewards: sigmoid (as printed), log-sigmoid [choice], whose gradient does not vanish on mis-ordered pairs."""
    cer: NonNegativeFloat = 1.0
    """Weight of the CER auxiliary, per pair; 0 is the ablation without it."""
    balance: BalanceRule = field(default_factory=StartShare)
    """The weight of the bound relative to the ranking: start-share, the ranking has half of the gradient at the start [OURS]; literal-weights."""

    def _terms(self, inference: Inference, pair: Pair) -> Terms:
        """Likelihood, negative, KL, temporal-difference and CER terms."""
        chosen, rejected = pair.chosen, pair.rejected
        assert chosen.outputs is not None
        assert rejected.outputs is not None
        counted, weight = inference.likelihood(rejected.mask), token_weight(rejected)
        costs = self.negative(inference.q_logp(rejected), counted)
        difference = last_value(to_wide(chosen.outputs[..., 0]), chosen.mask) - last_value(to_wide(rejected.outputs[..., 0]), rejected.mask)
        return {
            "likelihood": inference.demonstrated(chosen),
            "negative": Term(masked_sum(weight * costs, counted), masked_sum(weight, counted), inference.beta),
            **inference.bound([chosen, rejected], pair.state),
            "cer": Term(self.ranking(difference), torch.ones_like(difference), self.cer),
        }
