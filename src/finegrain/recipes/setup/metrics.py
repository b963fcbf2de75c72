"""What a step or an evaluation logs, under the ecosystem's names; sums and counts, so that any split adds up."""

from typing import Any

import torch
from torch import Tensor

from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import wide
from finegrain.train.loop import Metrics, Sums
from finegrain.types import Pair, Side


def metrics_for(objective: Any) -> Metrics:
    """Preference metrics where there are two sides, answer metrics otherwise; rewards are beta * log-ratio."""
    beta = float(getattr(objective, "beta", 1.0))
    return lambda pair: pair_metrics(pair, beta) if "chosen" in pair.sides and "rejected" in pair.sides else answer_metrics(pair, beta)


def pair_metrics(pair: Pair, beta: float) -> Sums:
    """rewards/*, logps/* and the kept share of both sides; rewards count all tokens, whatever the credit keeps."""
    rows = float(pair.chosen.mask.shape[0])
    sums: Sums = {
        "logps/chosen": (_sum(_logp(pair.chosen)), rows),
        "logps/rejected": (_sum(_logp(pair.rejected)), rows),
        **_kept(pair, "chosen"),
        **_kept(pair, "rejected"),
    }
    if pair.chosen.ref_logp is not None and pair.rejected.ref_logp is not None:
        chosen, rejected = beta * _ratio(pair.chosen), beta * _ratio(pair.rejected)
        sums |= {
            "rewards/chosen": (_sum(chosen), rows),
            "rewards/rejected": (_sum(rejected), rows),
            "rewards/margins": (_sum(chosen - rejected), rows),
            "rewards/accuracies": (_sum((chosen > rejected).double()), rows),
        }
    else:
        sums["logps/margins"] = (_sum(_logp(pair.chosen) - _logp(pair.rejected)), rows)
    return sums


def answer_metrics(pair: Pair, beta: float) -> Sums:
    """Metrics of single answers: by label where there is one, as a perplexity-like mean otherwise."""
    side = pair.answer
    logp, tokens = _logp(side), side.mask.sum(-1).double()
    sums: Sums = {"logps/answer": (_sum(logp), float(len(logp))), "logp_per_token": (_sum(logp), _sum(tokens)), **_kept(pair, "answer")}
    label = pair.columns.get("label")
    if label is not None and side.ref_logp is not None:
        good = label > 0.5
        reward = beta * _ratio(side)
        for name, rows in (("chosen", good), ("rejected", ~good)):
            sums[f"rewards/{name}"] = (_sum(reward[rows]), float(rows.sum()))
            sums[f"logps/{name}"] = (_sum(logp[rows]), float(rows.sum()))
    return sums


def margins(pair: Pair, beta: float) -> Tensor | None:
    """Per-row reward margin (or log-probability margin without a reference); None for single answers."""
    if "chosen" not in pair.sides or "rejected" not in pair.sides:
        return None
    if pair.chosen.ref_logp is None or pair.rejected.ref_logp is None:
        return _logp(pair.chosen) - _logp(pair.rejected)
    return beta * (_ratio(pair.chosen) - _ratio(pair.rejected))


def _sum(values: Tensor) -> float:
    return float(values.double().sum())


def _logp(side: Side) -> Tensor:
    return masked_sum(wide(side.logp), side.mask)


def _ratio(side: Side) -> Tensor:
    assert side.ref_logp is not None
    return masked_sum(wide(side.logp) - wide(side.ref_logp), side.mask)


def _kept(pair: Pair, role: str) -> Sums:
    """Share of the tokens' weight that the credit keeps, over answers that have a credit."""
    side, annotated = pair.sides[role], pair.columns.get(f"annotated/{role}")
    if side.weight is None or annotated is None:
        return {}
    counted = side.mask & (annotated > 0.5)[:, None]
    return {f"credit/kept_{role}": (_sum(torch.where(counted, side.weight, 0.0)), _sum(counted))}
