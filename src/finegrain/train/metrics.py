"""What a step or an evaluation logs, under the ecosystem's names; sums and counts, so that any split adds up."""

from collections.abc import Collection

import torch
from torch import Tensor

from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import to_wide
from finegrain.train.contract import Contract
from finegrain.train.tally import Measure, Metrics
from finegrain.types import Pair, Side

Rows = dict[str, Measure]
"""Value and count, each (B,), of every row: a metric is the quotient of their sums, over a step as over held-out rows."""
COMPARED = (("chosen", "rejected"), ("corrected", "original"))
"""Sides of which the first is the better one."""


def metrics_for(contract: Contract) -> Metrics:
    """Metrics of two sides that are compared, of single answers, or of every ranked answer, and the objective's own; rewards are beta * log-ratio."""
    return lambda pair: row_metrics(pair, contract)


def row_metrics(pair: Pair, contract: Contract) -> Rows:
    """Every metric of every row, with the objective's own."""
    roles = compared_roles(pair.sides)
    if roles is not None:
        usual = pair_metrics(pair, contract.beta, roles)
    else:
        usual = (answer_metrics if "answer" in pair.sides else ranked_metrics)(pair, contract.beta)
    own = {} if contract.measures is None else contract.measures(pair)
    return {**usual, **{name: Measure(term.value, term.count) for name, term in own.items()}}


def compared_roles(roles: Collection[str]) -> tuple[str, str] | None:
    """The better and the worse of two answers, under the names that the data's shape has for them; None where no two are compared."""
    return next((pair for pair in COMPARED if set(pair) <= set(roles)), None)


def pair_metrics(pair: Pair, beta: float, roles: tuple[str, str] = COMPARED[0]) -> Rows:
    """rewards/*, logps/* and the kept share of both sides; rewards count all tokens, whatever the credit keeps.

    Without a reference the sides are compared per token: sums of answers of unequal lengths differ by the lengths first.
    """
    better, worse = (pair.sides[role] for role in roles)
    logps = [_logp(better), _logp(worse)]
    one = torch.ones_like(logps[0])
    found: Rows = {f"logps/{role}": Measure(logp, one) for role, logp in zip(roles, logps, strict=True)}
    found |= {**_kept(pair, roles[0]), **_kept(pair, roles[1])}
    if better.ref_logp is not None and worse.ref_logp is not None:
        rewards = [beta * _ratio(better), beta * _ratio(worse)]
        return found | {
            **{f"rewards/{role}": Measure(reward, one) for role, reward in zip(roles, rewards, strict=True)},
            "rewards/margins": Measure(rewards[0] - rewards[1], one),
            "rewards/accuracies": Measure((rewards[0] > rewards[1]).to(one.dtype), one),
        }
    margin = _per_token(better) - _per_token(worse)
    return found | {"logps/margins_per_token": Measure(margin, one), "logps/accuracies": Measure((margin > 0).to(one.dtype), one)}


def answer_metrics(pair: Pair, beta: float) -> Rows:
    """Metrics of single answers: by label where there is one, as a perplexity-like mean otherwise."""
    side = pair.answer
    logp = _logp(side)
    found: Rows = {
        "logps/answer": Measure(logp, torch.ones_like(logp)),
        "logp_per_token": Measure(logp, side.mask.sum(-1)),
        **_kept(pair, "answer"),
    }
    label = pair.columns.get("label")
    if label is not None and side.ref_logp is not None:
        reward = beta * _ratio(side)
        for name, rows in (("chosen", label > 0.5), ("rejected", ~(label > 0.5))):
            count = rows.to(reward.dtype)
            found[f"rewards/{name}"] = Measure(torch.where(rows, reward, 0.0), count)
            found[f"logps/{name}"] = Measure(torch.where(rows, logp, 0.0), count)
    return found


def ranked_metrics(pair: Pair, beta: float) -> Rows:
    """Log-probabilities of ranked answers, over the rows that have the answer."""
    found: Rows = {}
    for role, side in pair.sides.items():
        logp = _logp(side)
        found |= {f"logps/{role}": Measure(logp, side.mask.any(-1).to(logp.dtype)), f"logp_per_token/{role}": Measure(logp, side.mask.sum(-1))}
        found |= _kept(pair, role)
    return found


def _logp(side: Side) -> Tensor:
    return masked_sum(to_wide(side.logp), side.mask)


def _ratio(side: Side) -> Tensor:
    assert side.ref_logp is not None
    return masked_sum(to_wide(side.logp) - to_wide(side.ref_logp), side.mask)


def _per_token(side: Side) -> Tensor:
    """Mean log-probability of an answer's tokens, nats; 0 for an answer without any."""
    return _logp(side) / side.mask.sum(-1).clamp(min=1)


def _kept(pair: Pair, role: str) -> Rows:
    """Share of the tokens' weight that the credit keeps, over answers that have a credit."""
    side, annotated = pair.sides[role], pair.columns.get(f"annotated/{role}")
    if side.weight is None or annotated is None:
        return {}
    counted = side.mask & (annotated > 0.5)[:, None]
    return {f"credit/kept_{role}": Measure(torch.where(counted, to_wide(side.weight), 0.0).sum(-1), counted.sum(-1))}
