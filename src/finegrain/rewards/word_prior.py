"""A prior on token scores: the score that a table of words, fitted to the same pairs and spans, gives each token [OURS].

    L = loss + weight * mean over the tokens of both answers of (r_t - table_t)^2

table_t: nats, from a ridge logistic regression on token counts (`finegrain.ops.token_table`), which has a number per word and no context; the
model may leave it where context says more. A table that knows nothing is 0 everywhere, and the term shrinks token scores towards 0.
Source: ours; a normal prior around another model's prediction.
Deviations: not from a paper. The squared distance and the weights that are tried are [choice]. The table is fitted to the rows that the model
trains on, not cross-fitted: its scores are a function of the token alone, which the model learns as such, and tables of parts know less.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.ops.masked import masked_sum
from finegrain.rewards.columns import AnswerContext
from finegrain.types import Pair, Term, TokenColumns

PAIR = ("chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class NoPrior:
    """Token scores are learned from the loss alone."""


@dataclass(frozen=True, kw_only=True)
@checked
class WordTable:
    """Token scores are drawn towards those of a table of words."""

    weight: PositiveFloat | None = None
    """Weight of the squared distance, in nats^-2; by default the best of a few on pairs held out of the training rows."""


Prior = NoPrior | WordTable


def prepare_targets(context: AnswerContext) -> Mapping[str, TokenColumns]:
    """The table's score of every token of the training answers; held-out answers have none, since nothing trains on them."""
    if not context.trains:
        return {}
    scores = context.table_scores()
    return {role: TokenColumns.of(reward=[own.astype(np.float32) for own in scores[role]]) for role in PAIR}


def distance_term(scores: Mapping[str, Float[Tensor, "B T"]], pair: Pair, weight: float) -> Term:
    """Squared distance of the token scores (by role) from the table's, a mean over tokens; zero where the answers have no table."""
    zero = torch.zeros_like(next(iter(scores.values()))[:, 0])
    value, count = zero, zero
    for role, own in scores.items():
        side = pair.sides[role]
        if side.reward is not None:
            inside = side.mask & torch.isfinite(side.reward)
            target = torch.where(inside, side.reward, 0.0).to(own.dtype)
            value = value + masked_sum((own - target).square(), inside)
            count = count + inside.sum(1).to(own.dtype)
    return Term(value, count, weight)
