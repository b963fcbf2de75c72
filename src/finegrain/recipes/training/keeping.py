"""What a job is evaluated by while it trains: checked before any model is loaded, and made once there is a trainer."""

from collections.abc import Callable, Mapping
from typing import Any

from finegrain.errors import DataError, UsageError, unknown_name
from finegrain.recipes.training.job import Job
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.loop import Trainer
from finegrain.train.selection import Criterion, Selection


def criterion_of(job: Job, contract: Contract) -> Criterion | None:
    """What makes a step the better one, if anything follows from it; raises where the job contradicts itself."""
    training = job.training
    if not training.eval_every:
        return None
    if job.common.eval is None and not training.holdout:
        raise UsageError("--eval-every evaluates held-out rows, and --holdout 0 keeps none; give --eval FILE, or a share")
    known = job.artifact.results(contract)
    if not known:
        raise UsageError(f"--eval-every: {contract.name} reports no held-out results, so there is nothing to evaluate while it trains")
    if training.keep_by is not None and training.keep_by not in known:
        raise unknown_name("result for --keep-by", training.keep_by, known)
    if training.keep == "last" and not training.patience:
        return None
    name = training.keep_by or next(iter(known))
    return Criterion(name, known[name])


def selection_of(job: Job, criterion: Criterion | None, trainer: Trainer, held_out: TrainingSet) -> Selection | None:
    """Evaluation while training; None where none was asked for."""
    training = job.training
    if not training.eval_every:
        return None
    if not held_out.examples:
        raise DataError("--eval-every evaluates held-out rows, and the data gave none; bring more rows, a larger --holdout, or --eval FILE")
    measure = _as_it_is(trainer, lambda: job.artifact.evaluate(trainer, held_out))
    return Selection(training.eval_every, measure, criterion, training.keep == "best", training.patience, job.out)


def _as_it_is(trainer: Trainer, measure: Callable[[], Mapping[str, Any]]) -> Callable[[], Mapping[str, Any]]:
    """The measurement by the scorer's path of now, whichever it takes while it trains: a head alone trains on stored features."""
    scorer, path = trainer.scorer, trainer.scorer.path

    def measured() -> Mapping[str, Any]:
        own, scorer.path = scorer.path, path
        try:
            return measure()
        finally:
            scorer.path = own

    return measured
