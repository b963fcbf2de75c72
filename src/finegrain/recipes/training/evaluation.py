"""Held-out metrics: the same names with eval_ before them, and the margin with its interval over rows."""

from typing import Any

import torch

from finegrain.models.score import budgeted
from finegrain.ops.stats import mean_interval
from finegrain.recipes.setup.metrics import margins
from finegrain.train.collate import TrainingSet, collate
from finegrain.train.contract import as_terms
from finegrain.train.loop import Trainer, detached
from finegrain.train.tally import Tally


def evaluate(trainer: Trainer, data: TrainingSet) -> dict[str, Any]:
    """Metrics of rows that were not trained on, without credit or row weights; the loss where it needs no step statistics."""
    if not data.examples:
        return {}
    contract = trainer.contract
    tally = Tally()
    losses: dict[str, tuple[float, float, float]] = {}
    found: list[float] = []
    was_training = trainer.scorer.training
    trainer.scorer.eval()
    with torch.no_grad():
        for part in budgeted(data.packed_tokens(contract.roles).tolist(), trainer.how.micro_tokens):
            pair = detached(trainer.pair(collate(data, part, contract.roles, device=trainer.scorer.device), {}, scored=True))
            tally.note_metrics(trainer.metrics(pair))
            own = margins(pair, float(getattr(contract.objective, "beta", 1.0)))
            found += [] if own is None else own.tolist()
            if contract.statistics is None and "reward" not in contract.needs:
                for name, term in as_terms(contract.objective(pair), pair).items():
                    value, count, _ = losses.get(name, (0.0, 0.0, 0.0))
                    losses[name] = (value + float(term.value.sum()), count + float(term.count.sum()), term.coefficient)
    trainer.scorer.train(was_training)
    logged: dict[str, Any] = {f"eval_{name}": total / count for name, (total, count) in tally.means.items() if count}
    if losses:
        logged["eval_loss"] = sum(coefficient * value / max(count, 1e-12) for value, count, coefficient in losses.values())
    if found:
        interval = mean_interval(found)
        logged["eval_margin"] = {"mean": interval.mean, "low": interval.low, "high": interval.high, "rows": interval.rows}
    return logged
