"""What `finegrain reward` makes: what its steps log, how it is tested on held-out pairs, and the stock layout it is saved in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finegrain.evaluate.accuracy import pair_accuracy
from finegrain.evaluate.calibration import pair_calibration
from finegrain.evaluate.discrimination import mistakes_found
from finegrain.models.reward_models import SEQUENCE, TOKEN, Stock, check_stock, save_reward_model
from finegrain.models.score import budgeted
from finegrain.ops.readout import Last
from finegrain.ops.stats import Interval
from finegrain.recipes.session import Session
from finegrain.rewards.heads import RewardHead, sequence_score
from finegrain.train.collate import TrainingSet, collate
from finegrain.train.loop import Metrics, Sums, Trainer, detached
from finegrain.types import Objective, Pair, Scored


def stock_of(head: RewardHead) -> Stock:
    """Sequence classification where the last token speaks for the answer, token classification otherwise."""
    return SEQUENCE if isinstance(head.readout, Last) else TOKEN


@dataclass(frozen=True)
class TrainedReward:
    """A reward model."""

    head: RewardHead
    facts: Mapping[str, Any]
    """Names and settings of head and loss, for the checkpoint."""

    @property
    def loader(self) -> str:
        """The stock class."""
        return stock_of(self.head).name

    def check(self, session: Session) -> None:
        """Refuse before training what could not be saved."""
        check_stock(session.policy.model, stock_of(self.head))

    def metrics(self, objective: Objective) -> Metrics:
        """Scores of both sides, their difference and how often it is right."""
        return lambda pair: reward_metrics(self.head, pair)

    def evaluate(self, trainer: Trainer, data: TrainingSet) -> dict[str, Any]:
        """Pair accuracy with its interval and its length-only baseline, calibration, and what the std says of mistakes."""
        if not data.examples or "chosen" not in trainer.contract.roles:
            return {}
        scores = {role: _joined([score[role] for score in _scores(self.head, trainer, data)]) for role in ("chosen", "rejected")}
        chosen, rejected = (scores[role].mean.double().numpy() for role in ("chosen", "rejected"))
        lengths = {role: torch.tensor([float(len(e.responses[role].ids)) for e in data.examples]).numpy() for role in ("chosen", "rejected")}
        calibration = pair_calibration(chosen, rejected)
        found: dict[str, Any] = {
            "eval_accuracy": _shown(pair_accuracy(chosen, rejected).accuracy),
            "eval_accuracy_length_only": _shown(pair_accuracy(lengths["chosen"], lengths["rejected"]).accuracy),
            "eval_ece": _shown(calibration.error),
            "eval_nll": _shown(calibration.negative_log_likelihood),
        }
        if scores["chosen"].std is not None and scores["rejected"].std is not None:
            uncertainty = (scores["chosen"].std.square() + scores["rejected"].std.square()).sqrt().double().numpy()
            correct = chosen > rejected
            if correct.any() and not correct.all():
                found["eval_mistakes_auroc"] = _shown(mistakes_found(correct, uncertainty))
        return found

    def save(self, session: Session, folder: Path) -> None:
        """The stock layout, the whole head and what it means."""
        assert session.scorer is not None
        assert session.scorer.head is not None
        weight = next(session.scorer.head.parameters()).detach()
        save_reward_model(session.policy, session.scorer.head, self.head.stock(weight), stock_of(self.head), self.facts, folder)


def reward_metrics(head: RewardHead, pair: Pair) -> Sums:
    """rewards/* as sums and counts."""
    rows = float(next(iter(pair.sides.values())).mask.shape[0])
    scores = {role: sequence_score(head, side) for role, side in pair.sides.items()}
    sums: Sums = {f"rewards/{role}": (_sum(score.mean), rows) for role, score in scores.items()}
    sums |= {f"rewards/std_{role}": (_sum(score.std), rows) for role, score in scores.items() if score.std is not None}
    if "chosen" in scores and "rejected" in scores:
        difference = scores["chosen"].mean - scores["rejected"].mean
        sums["rewards/margins"] = (_sum(difference), rows)
        sums["rewards/accuracies"] = (_sum(difference > 0), rows)
    return sums


def _scores(head: RewardHead, trainer: Trainer, data: TrainingSet) -> list[dict[str, Scored]]:
    """Scores of the answers, micro-batch by micro-batch."""
    roles = trainer.contract.roles
    was_training = trainer.scorer.training
    trainer.scorer.eval()
    found = []
    with torch.no_grad():
        for part in budgeted(data.packed_tokens(roles).tolist(), trainer.how.micro_tokens):
            pair = detached(trainer.pair(collate(data, part, roles, device=trainer.scorer.device), {}, scored=True))
            found.append({role: sequence_score(head, side) for role, side in pair.sides.items()})
    trainer.scorer.train(was_training)
    return found


def _joined(parts: list[Scored]) -> Scored:
    stds = [part.std for part in parts if part.std is not None]
    return Scored(torch.cat([part.mean for part in parts]).cpu(), torch.cat(stds).cpu() if stds else None)


def _sum(values: Tensor) -> float:
    return float(values.double().sum())


def _shown(interval: Interval) -> dict[str, Any]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "rows": interval.rows}
