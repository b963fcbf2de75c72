"""What a step or an evaluation logs, under the ecosystem's names; values and counts of rows, so that any split adds up."""

from typing import Any

import torch
from torch import Tensor

from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import wide
from finegrain.train.tally import Measure, Measures, Metrics
from finegrain.types import Pair, Side


def metrics_for(objective: Any) -> Metrics:
    """Preference metrics where there are two sides, answer metrics otherwise; rewards are beta * log-ratio."""
    beta = float(getattr(objective, "beta", 1.0))
    return lambda pair: pair_metrics(pair, beta) if "chosen" in pair.sides and "rejected" in pair.sides else answer_metrics(pair, beta)


def pair_metrics(pair: Pair, beta: float) -> Measures:
    """rewards/*, logps/* and the kept share of both sides; rewards count all tokens, whatever the credit keeps."""
    measures: Measures = {
        "logps/chosen": Measure(_logp(pair.chosen)),
        "logps/rejected": Measure(_logp(pair.rejected)),
        **_kept(pair, "chosen"),
        **_kept(pair, "rejected"),
    }
    if pair.chosen.ref_logp is not None and pair.rejected.ref_logp is not None:
        chosen, rejected = beta * _ratio(pair.chosen), beta * _ratio(pair.rejected)
        measures |= {
            "rewards/chosen": Measure(chosen),
            "rewards/rejected": Measure(rejected),
            "rewards/margins": Measure(chosen - rejected),
            "rewards/accuracies": Measure(chosen > rejected),
        }
    else:
        measures["logps/margins"] = Measure(_logp(pair.chosen) - _logp(pair.rejected))
    return measures


def answer_metrics(pair: Pair, beta: float) -> Measures:
    """Metrics of single answers: by label where there is one, as a perplexity-like mean otherwise."""
    side = pair.answer
    logp = _logp(side)
    measures: Measures = {"logps/answer": Measure(logp), "logp_per_token": Measure(logp, side.mask.sum(-1)), **_kept(pair, "answer")}
    label = pair.columns.get("label")
    if label is not None and side.ref_logp is not None:
        good = label > 0.5
        reward = beta * _ratio(side)
        for name, rows in (("chosen", good), ("rejected", ~good)):
            measures[f"rewards/{name}"] = Measure(torch.where(rows, reward, 0.0), rows)
            measures[f"logps/{name}"] = Measure(torch.where(rows, logp, 0.0), rows)
    return measures


def margins(pair: Pair, beta: float) -> Tensor | None:
    """Per-row reward margin (or log-probability margin without a reference); None for single answers."""
    if "chosen" not in pair.sides or "rejected" not in pair.sides:
        return None
    if pair.chosen.ref_logp is None or pair.rejected.ref_logp is None:
        return _logp(pair.chosen) - _logp(pair.rejected)
    return beta * (_ratio(pair.chosen) - _ratio(pair.rejected))


def _logp(side: Side) -> Tensor:
    return masked_sum(wide(side.logp), side.mask)


def _ratio(side: Side) -> Tensor:
    assert side.ref_logp is not None
    return masked_sum(wide(side.logp) - wide(side.ref_logp), side.mask)


def _kept(pair: Pair, role: str) -> Measures:
    """Share of the tokens' weight that the credit keeps, over answers that have a credit."""
    side, annotated = pair.sides[role], pair.columns.get(f"annotated/{role}")
    if side.weight is None or annotated is None:
        return {}
    counted = side.mask & (annotated > 0.5)[:, None]
    return {f"credit/kept_{role}": Measure(torch.where(counted, side.weight, 0.0), counted)}
