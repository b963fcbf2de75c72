"""The weight of a token head's prior where none is given: the one whose model says most of pairs held out of the training rows, after a short fit."""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from finegrain.data.holdout import split_holdout
from finegrain.data.store import ExampleStore
from finegrain.errors import DataError
from finegrain.models.score import compute_head_rows
from finegrain.models.scorer import Scorer
from finegrain.recipes.session import Session
from finegrain.recipes.training.answer_context import RunAnswers
from finegrain.recipes.training.data import Rows, made_numbers
from finegrain.recipes.training.job import Job
from finegrain.recipes.training.reward_artifact import reward_metrics
from finegrain.rewards.bradley_terry import bradley_terry_loss, pair_labels
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.heads import RewardHead, sequence_score
from finegrain.rewards.token import Token
from finegrain.rewards.word_prior import PAIR, NoPrior, WordTable
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.fit import FitSettings, fit
from finegrain.train.read_contract import contract_of
from finegrain.types import Json, Objective, Pair, Side

WEIGHTS = (0.0, 1.0, 10.0, 100.0)
"""Tried [choice]; 0: no prior."""
SHARE = 0.2
"""Of the training rows, held out to choose."""
STEPS = 300
"""The most optimiser steps of a fit; a shorter run takes its own number."""


def settle_prior(session: Session, job: Job, contract: Contract, rows: Rows, rate: float) -> tuple[Job, Contract, Json]:
    """The job and its contract with the weight that its prior asks for, and what was tried, for run.json; as they are where it asks for none."""
    objective = job.objective
    if not _asks(objective):
        return job, contract, {}
    assert isinstance(objective, RewardFit)
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[session.device] if session.device.type == "cuda" else []):
        tried = try_weights(session, job, contract, rows, rate)
    chosen = min(tried, key=lambda weight: tried[weight])
    facts = {
        "weight": chosen,
        "held_out_nll": {f"{weight:g}": round(loss, 4) for weight, loss in tried.items()},
        "seconds": round(time.perf_counter() - started, 3),
    }
    words = ", ".join(f"{loss:.3f} with {weight:g}" for weight, loss in tried.items())
    session.say(f"prior: weight {chosen:g}{'' if chosen else ', which is none'}; loss of pairs held out of the training rows: {words}")
    own = with_weight(objective, chosen)
    return replace(job, objective=own), contract_of(own, session.seed), {"prior_weight": facts}


def _asks(objective: Objective) -> bool:
    """Whether it has a prior without a weight."""
    head = objective.head if isinstance(objective, RewardFit) else None
    return isinstance(head, Token) and isinstance(head.prior, WordTable) and head.prior.weight is None


def with_weight(objective: RewardFit, weight: float) -> RewardFit:
    """The objective with this weight of its prior; 0: without one."""
    assert isinstance(objective.head, Token)
    prior = WordTable(weight=weight) if weight else NoPrior()
    return RewardFit(replace(objective.head, prior=prior), objective.loss, objective.frozen)


def try_weights(session: Session, job: Job, contract: Contract, rows: Rows, rate: float) -> dict[float, float]:
    """By weight, the mean Bradley-Terry loss of the rows held out, nats, of models and a table that have not seen them."""
    assert isinstance(job.objective, RewardFit)
    assert session.scorer is not None
    train, held, _ = split_holdout(rows.train, SHARE, session.seed)
    if not len(held):
        raise DataError(
            f"{len(rows.train)} rows are too few to choose the weight of the prior: {SHARE:.0%} of them are held out for it; set --head.prior.weight"
        )
    columns = job.objective.prepare(RunAnswers(session, train, contract.roles))
    data = TrainingSet(train, {}, columns, made_numbers(rows, contract, train, {}), rows.categories)
    training = job.training
    settings = FitSettings(
        rate=rate,
        batch_size=training.batch_size,
        epochs=training.epochs,
        max_steps=min(STEPS, job.common.max_steps or STEPS),
        seed=session.seed,
        optim=job.optim,
    )
    losses = {}
    for weight in WEIGHTS:
        objective = with_weight(job.objective, weight)
        metrics = lambda pair, head=objective.head: reward_metrics(head, pair)
        fitted = fit(session.scorer, data, objective, settings, session.precision, metrics=metrics)
        losses[weight] = held_out_loss(session, fitted.scorer, job.objective.head, held, made_numbers(rows, contract, held, {}))
    return losses


def held_out_loss(session: Session, scorer: Scorer, head: RewardHead, held: ExampleStore, numbers: dict[str, np.ndarray]) -> float:
    """Mean Bradley-Terry loss of pairs, nats, under their labels and weights."""
    outputs = compute_head_rows(scorer, held, PAIR, session.precision)
    chosen, rejected = (
        torch.stack([_answer_score(head, values, example.responses[role].mask) for values, example in zip(outputs[role], held, strict=True)])
        for role in PAIR
    )
    return mean_pair_loss(chosen - rejected, {name: held.column(name) for name in held.columns} | numbers)


def mean_pair_loss(difference: Float[torch.Tensor, " B"], columns: Mapping[str, np.ndarray]) -> float:
    """Mean Bradley-Terry loss under the labels that the columns say, by their weights; 0 where all weights are."""
    pair = Pair(sides={}, columns={name: torch.as_tensor(values).double() for name, values in columns.items()})
    losses, weight = bradley_terry_loss(difference, **pair_labels(pair)), pair.columns.get("weight", torch.ones_like(difference))
    return float((losses * weight).sum() / weight.sum().clamp(min=torch.finfo(torch.float64).tiny))


def _answer_score(head: RewardHead, outputs: np.ndarray, mask: np.ndarray) -> torch.Tensor:
    """The score of one answer, float64."""
    side = Side(logp=torch.zeros(1, len(mask)), mask=torch.from_numpy(mask)[None], outputs=torch.from_numpy(outputs).double()[None])
    return sequence_score(head, side).mean[0]
