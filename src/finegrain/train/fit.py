"""Train a copy of a model in memory, for models that only live inside a run: nothing is written, and what is passed stays as it is."""

import copy
from dataclasses import dataclass
from typing import NamedTuple

from finegrain.models.score import Precision
from finegrain.models.scorer import Scorer, causal_lm, release_unread_vocabulary
from finegrain.train.batches import Plan
from finegrain.train.collate import TrainingSet
from finegrain.train.distributed import world
from finegrain.train.loop import run_step
from finegrain.train.metrics import metrics_for
from finegrain.train.optim import Optim
from finegrain.train.read_contract import contract_of
from finegrain.train.tally import Metrics
from finegrain.train.trainer import make_trainer
from finegrain.types import Objective

Line = dict[str, int | float]
"""The logged numbers of one step."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How long a copy trains, and how fast."""

    rate: float
    """Peak learning rate."""
    batch_size: int
    """Rows of one optimiser step."""
    epochs: float = 1.0
    max_steps: int | None = None
    """The most optimiser steps; the schedule of the learning rate ends with them."""
    seed: int = 0
    """Of the order of the rows, and of what an objective draws."""
    optim: Optim = Optim()


class Fit(NamedTuple):
    """A model that was trained in memory."""

    scorer: Scorer
    """The trained copy."""
    lines: list[Line]
    """What its steps logged, in their order."""
    tokens: int
    """Packed tokens of the rows, each row counted once."""


def fit(
    start: Scorer,
    data: TrainingSet,
    objective: Objective,
    settings: FitSettings,
    precision: Precision,
    *,
    metrics: Metrics | None = None,
) -> Fit:
    """A copy of `start`, head included, trained on `data`: rows with the reference values and columns that the objective reads.

    `metrics`: what every step logs; by default the objective's.
    """
    config = causal_lm(start.model).config.get_text_config()
    contract = contract_of(objective, settings.seed).sized(int(config.num_hidden_layers), int(config.hidden_size), settings.seed)
    scorer = Scorer(copy.deepcopy(start.model), start.path, copy.deepcopy(start.head))
    if "logp" not in contract.needs:
        release_unread_vocabulary(scorer.model)
    tokens = data.packed_tokens(contract.roles)
    plan = Plan(tokens, settings.batch_size, settings.epochs, settings.seed, precision.micro_tokens, world(), settings.max_steps)
    trainer = make_trainer(scorer, contract, data, precision, metrics or metrics_for(contract), settings.optim, rate=settings.rate, steps=len(plan))
    lines = [run_step(trainer, plan.step(index)) for index in range(len(plan))]
    return Fit(scorer, lines, int(tokens.sum()))
