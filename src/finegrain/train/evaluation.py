"""Held-out results of a policy: what its objective declares decides what is measured; every number with its interval, or the reason for none.

- Every metric of metrics.jsonl with `eval_` before it.
- The loss. An objective with statistics of the step has them here of all held-out rows together; one that trains on token rewards has none.
- Pairs: the share in order, and the margin of rewards; of log-probabilities per token where there is no reference.
- Labelled answers: how far the good ones' reward is above the others', and how well it tells them apart.
- A reward head beside the policy: how often it ranks the pairs as labelled, its doubt, and how far its scores spread.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finegrain import catalog
from finegrain.evaluate.accuracy import pair_accuracy
from finegrain.evaluate.discrimination import auroc
from finegrain.models.score import split_by_budget
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval, difference_interval, mean_interval, sum_of_ratios
from finegrain.rewards.heads import RewardHead, sequence_score
from finegrain.train.balance import weight_of
from finegrain.train.batches import Step
from finegrain.train.collate import TrainingSet, collate
from finegrain.train.contract import Contract, as_terms
from finegrain.train.detach import detached
from finegrain.train.distributed import world
from finegrain.train.loop import Trainer, step_statistics
from finegrain.train.metrics import COMPARED, compared_roles, row_metrics
from finegrain.types import Pair, Scored

SHARES = frozenset({"rewards/accuracies", "logps/accuracies", "score/accuracies"})
"""Metrics that are a share of rows: Wilson's interval."""

NO_TOKEN_REWARDS = "it trains on the token rewards of a credit, which is made for training rows alone"


@dataclass
class Column:
    """A number of every held-out row with its count, as it comes in."""

    values: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)

    def add(self, value: Tensor, count: Tensor) -> None:
        """The rows of a micro-batch."""
        self.values.append(value.detach().cpu().double())
        self.counts.append(count.detach().cpu().double())

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) values and counts."""
        return torch.cat(self.values).numpy(), torch.cat(self.counts).numpy()


Read = Callable[[Sequence[int], Pair], None]
"""(places of rows, their values): what else reads them while they are evaluated."""


def evaluate(trainer: Trainer, data: TrainingSet, read: Read | None = None) -> dict[str, Any]:
    """Results of rows that were not trained on, without credit and row weights; {} without rows. Changes nothing, draws nothing."""
    if not data.examples:
        return {}
    contract = trainer.contract
    head = reward_head_of(contract)
    loss_of = contract.objective if contract.held_out_loss is None else contract.held_out_loss
    metrics: dict[str, Column] = {}
    losses: dict[str, tuple[float, Column]] = {}
    scores: list[dict[str, Scored]] = []
    labels: list[Tensor] = []
    with measuring(trainer):
        statistics, missing = _statistics(trainer, data)
        for part in split_by_budget(data.packed_tokens(contract.roles).tolist(), trainer.precision.micro_tokens):
            batch = collate(data, part, contract.roles, positions=part, device=trainer.scorer.device)
            pair = detached(trainer.pair(batch, statistics, scored=True))
            if read is not None:
                read(part, pair)
            for name, (value, count) in row_metrics(pair, contract).items():
                metrics.setdefault(name, Column()).add(value, torch.ones_like(value) if count is None else count)
            if not missing:
                for name, term in as_terms(loss_of(pair), _unweighted(pair)).items():
                    coefficient = term.coefficient * weight_of(name, contract.balanced, trainer.state)
                    losses.setdefault(name, (coefficient, Column()))[1].add(term.value, term.count)
            if head is not None:
                scores.append({role: sequence_score(head, side) for role, side in pair.sides.items()})
            if "label" in pair.columns:
                labels.append(pair.columns["label"].cpu())
    found = {name: _metric(name, *column.arrays) for name, column in metrics.items()}
    results = {f"eval_{name}": as_record(interval) for name, interval in found.items() if interval.rows}
    results["eval_loss"] = {**EMPTY, "reason": f"no loss: {missing}"} if missing else as_record(_loss(losses))
    return results | _compared(contract, metrics, found, labels) | ({} if head is None else _of_scores(scores))


def results_of(contract: Contract) -> dict[str, bool]:
    """Results that every evaluation of the objective gives and that say which of two models is better, the usual one first; True: more is."""
    reference, roles = bool(contract.needs & {"reference", "reward"}), compared_roles(contract.roles)
    found = {} if "reward" in contract.needs else {"eval_loss": False}
    if roles is not None:
        side, (better, worse) = "rewards" if reference else "logps", roles
        found |= {"eval_accuracy": True, "eval_margin" if reference else "eval_margin_per_token": True}
        found |= {f"eval_{name}": True for name in ("rewards/accuracies", "rewards/margins") if reference}
        found |= {f"eval_{name}": True for name in ("logps/accuracies", "logps/margins_per_token") if not reference}
        found |= {f"eval_{side}/{better}": True, f"eval_{side}/{worse}": False, f"eval_logps/{better}": True}
    elif "answer" not in contract.roles:
        found |= {f"eval_logp_per_token/{contract.roles[0]}": True}
    else:
        found |= {"eval_logp_per_token": True, "eval_logps/answer": True}
        if "label" in contract.needs and reference:
            found |= {"eval_margin": True, "eval_auroc": True, "eval_rewards/chosen": True, "eval_rewards/rejected": False}
    if contract.reward_head is not None:
        found |= {"eval_reward_accuracy": True, "eval_reward_margin": True} if roles == COMPARED[0] else {}
    return found


@contextmanager
def measuring(trainer: Trainer) -> Iterator[None]:
    """The model as it is used: no gradient, no noise of training, and the generators afterwards as they were before."""
    with without_noise(trainer), torch.no_grad():
        yield


@contextmanager
def without_noise(trainer: Trainer) -> Iterator[None]:
    """No noise of training, and the generators afterwards as they were before; gradients are as the caller has them."""
    parts = [trainer.scorer, *trainer.contract.modules.values()]
    was_training = [part.training for part in parts]
    for part in parts:
        part.eval()
    devices = [trainer.scorer.device] if trainer.scorer.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for part, training in zip(parts, was_training, strict=True):
            part.train(training)


def reward_head_of(contract: Contract) -> RewardHead | None:
    """The head whose numbers an objective trains beside the policy, as `finegrain score` reads them; None where it trains none."""
    if contract.reward_head is None:
        return None
    head: RewardHead = catalog.load("head", contract.reward_head)(reward_weight=contract.reward_weight)
    return head


UNKNOWN = Interval(math.nan, None, None, 0)
EMPTY: Mapping[str, Any] = {"mean": None, "low": None, "high": None, "rows": 0}


def as_record(interval: Interval) -> dict[str, Any]:
    """An interval for run.json; a missing bound or mean has a reason."""
    mean, low, high = (None if value is None or not math.isfinite(value) else float(value) for value in interval[:3])
    record = {"mean": mean, "low": low, "high": high, "rows": interval.rows}
    if mean is None:
        return record | {"reason": "no number: it is not finite on these rows" if interval.rows else "no number: no row says anything of it"}
    return record if low is not None and high is not None else record | {"reason": f"no interval: {interval.rows} rows are too few for one"}


def _unweighted(pair: Pair) -> Pair:
    return replace(pair, columns={name: values for name, values in pair.columns.items() if name != "weight"})


def _statistics(trainer: Trainer, data: TrainingSet) -> tuple[dict[str, Tensor], str]:
    """The objective's statistics of all rows, as if they were one step; and why there can be no loss, or nothing."""
    contract = trainer.contract
    if "reward" in contract.needs:
        return {}, NO_TOKEN_REWARDS
    if contract.statistics is None and contract.column_statistics is None:
        return {}, ""
    if lacking := sorted(set(contract.statistic_roles) - set(data.examples[0].responses)):
        return {}, f"its statistics need {' and '.join(lacking)} answers, and these rows, which share one prompt, have none"
    rows = range(len(data.examples))
    parts = [
        tuple(part)
        for part in split_by_budget(data.packed_tokens(contract.statistic_roles or contract.roles).tolist(), trainer.precision.micro_tokens)
    ]
    shares = tuple(tuple(parts[first :: world()]) for first in range(world()))
    return step_statistics(replace(trainer, data=data), Step(0, 0.0, tuple(rows), shares)), ""


def _metric(name: str, values: np.ndarray, counts: np.ndarray) -> Interval:
    """The mean of a metric, over the rows that count."""
    values, counts = values[counts != 0], counts[counts != 0]
    if not (counts == 1).all():
        return sum_of_ratios([(1.0, values, counts)])
    return wilson(values) if name in SHARES else mean_interval(values)


def _loss(losses: Mapping[str, tuple[float, Column]]) -> Interval:
    return sum_of_ratios([(coefficient, *column.arrays) for coefficient, column in losses.values()])


def _compared(contract: Contract, metrics: Mapping[str, Column], found: Mapping[str, Interval], labels: Sequence[Tensor]) -> dict[str, Any]:
    """Accuracy and margin of pairs, margin and area of labelled answers."""
    if "rewards/margins" in found:
        return {"eval_accuracy": as_record(found["rewards/accuracies"]), "eval_margin": as_record(found["rewards/margins"])}
    if "logps/margins_per_token" in found:
        return {"eval_accuracy": as_record(found["logps/accuracies"]), "eval_margin_per_token": as_record(found["logps/margins_per_token"])}
    if "label" not in contract.needs or "rewards/chosen" not in metrics:
        return {}
    good = torch.cat(list(labels)).numpy() > 0.5
    reward = metrics["rewards/chosen"].arrays[0] + metrics["rewards/rejected"].arrays[0]
    area = auroc(reward, good) if np.isfinite(reward).all() else UNKNOWN._replace(rows=len(reward))
    return {"eval_margin": as_record(difference_interval(reward[good], reward[~good])), "eval_auroc": as_record(area)}


def _of_scores(parts: Sequence[Mapping[str, Scored]]) -> dict[str, Any]:
    """What a reward head says of held-out answers."""
    roles = list(parts[0])
    means = {role: torch.cat([part[role].mean for part in parts]).cpu().double().numpy() for role in roles}
    every = np.concatenate(list(means.values()))
    stds = [part[role].std for role in roles for part in parts]
    if not np.isfinite(every).all():
        return {"eval_reward_spread": as_record(UNKNOWN._replace(rows=len(every)))}
    found = {"eval_reward_spread": _spread(every)}
    if all(std is not None for std in stds):
        found["eval_reward_std"] = mean_interval(torch.cat([std for std in stds if std is not None]).cpu().double().numpy())
    if {"chosen", "rejected"} <= set(roles):
        found["eval_reward_accuracy"] = pair_accuracy(means["chosen"], means["rejected"]).accuracy
        found["eval_reward_margin"] = mean_interval(means["chosen"] - means["rejected"])
    return {name: as_record(interval) for name, interval in found.items()}


def _spread(values: np.ndarray) -> Interval:
    """Standard deviation of the scores over answers."""
    if len(values) < 3:
        return Interval(float(values.std()), None, None, len(values))
    spread = lambda rows: float(values[rows].std(ddof=1))
    return Bootstrap(resamples=500)(spread, np.zeros(len(values), dtype=np.int64), lambda draws: values[draws].std(axis=1, ddof=1))
