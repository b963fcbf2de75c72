"""Odds ratio preference optimisation (ORPO): NLL of prompt and chosen answer, plus a log odds-ratio penalty.

Source: Hong et al. 2024, https://arxiv.org/abs/2403.07691, eq. 6 and 7 (number: memory); NLL over prompt + answer as in TRL 1.16.
Deviations: log(1 - e^a) switches branch at -ln 2 (TRL takes it directly, in float32); under token credit answer tokens
are weighted and averages divide by the kept weight, prompt tokens keep weight 1; a row that keeps no token has even
odds (log-odds 0) [choice].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.nll import nll_term
from finegrain.ops.logprobs import log_odds
from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import average_logp, kept_weight, to_wide
from finegrain.types import Pair, Side, Term, Terms


def average_log_odds(side: Side) -> Float[Tensor, " B"]:
    """log(p / (1 - p)) of p = exp(average log-probability per kept token); 0 for a row that keeps no token."""
    average = average_logp(side)
    kept = kept_weight(side) > 0
    return torch.where(kept, log_odds(torch.where(kept, average, -1.0)), 0.0)


def odds_ratio_bonus(pair: Pair, *, beta: float) -> Float[Tensor, " B"]:
    """beta * log sigma(log-odds of the chosen - log-odds of the rejected), which the loss subtracts."""
    return beta * logsigmoid(average_log_odds(pair.chosen) - average_log_odds(pair.rejected))


def whole_nll_term(side: Side) -> Term:
    """NLL of prompt and answer, a mean over their tokens, nats per token."""
    answer = nll_term(side)
    if side.prompt_logp is None or side.prompt_mask is None:
        raise ValueError("orpo trains on the prompt too: the chosen side needs prompt_logp and prompt_mask")
    prompt = -masked_sum(to_wide(side.prompt_logp), side.prompt_mask)
    return Term(answer.value + prompt, answer.count + side.prompt_mask.sum(-1))


@dataclass(frozen=True, kw_only=True)
@checked
class ORPO:
    """Hyper-parameters of ORPO."""

    needs: ClassVar[frozenset[str]] = frozenset({"prompt_logp"})
    learning_rate: ClassVar[float] = 8e-6
    """The authors' value for 7B models (memory); it trains like SFT, without a reference."""

    beta: PositiveFloat = 0.1
    """The paper's lambda: weight of the odds ratio against the NLL."""

    def __call__(self, pair: Pair) -> Terms:
        """The NLL, a mean over prompt and chosen tokens; the odds-ratio loss, a mean over pairs."""
        penalty = -odds_ratio_bonus(pair, beta=self.beta)
        return {"nll": whole_nll_term(pair.chosen), "odds_ratio": Term(penalty, torch.ones_like(penalty))}
