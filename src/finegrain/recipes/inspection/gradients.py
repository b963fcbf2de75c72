"""Gradient entanglement of a model on rows without training: what the first step of an objective would do to each pair, and a trial of it."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial

from finegrain.configure import method_name
from finegrain.data.records import Example
from finegrain.errors import UsageError
from finegrain.models.score import Precision
from finegrain.models.scorer import Scorer
from finegrain.recipes.session import Session
from finegrain.report.gradients import GradientFindings
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.diagnosis import one_pair
from finegrain.train.entanglement import ROLES, check_pairwise, measure_pair, measure_tokens, most_entangled, try_step
from finegrain.train.optim import Optim
from finegrain.train.read_contract import contract_of
from finegrain.train.tally import Measures
from finegrain.train.trainer import make_trainer
from finegrain.types import Objective, Pair, Ragged

COST = "gradients: two or three backward and four forward passes per pair, and memory for three gradients and a copy of the weights"


def check_measurable(objective: Objective) -> Contract:
    """The contract of an objective whose first step rows, a model and a reference determine alone; raises UsageError for others."""
    contract = contract_of(objective)
    check_pairwise(contract)
    made = contract.prepare or contract.stage or contract.statistics or contract.column_statistics or contract.make_modules or contract.make_reader
    if made or contract.outputs or contract.state or contract.make_state or contract.columns or contract.categories or "reward" in contract.needs:
        raise UsageError(f"what {contract.name} reads is made by a run; measure it while training, by `finegrain prefer --diagnose-every N`")
    return contract


def measure_gradients(
    session: Session, scorer: Scorer, objective: Objective, examples: Sequence[Example], reference: Mapping[str, Ragged]
) -> GradientFindings:
    """Every pair of the rows; `reference` by role, as the first step of a run would read it. The model's weights stay."""
    contract, started = check_measurable(objective), time.perf_counter()
    session.say(f"{COST}; {len(examples)} pairs")
    data = TrainingSet(examples, reference)
    wide = Precision(nullcontext, session.precision.name, session.precision.micro_tokens)  # a trial step is lost in half precision
    trainer = make_trainer(scorer, contract, data, wide, _no_metrics, Optim(), rate=0.0, steps=1)
    parameters, found = trainer.parameters(), []
    for place, example in enumerate(examples):
        pair = one_pair(trainer, place, {})
        measured, step = measure_pair(contract, pair, parameters, example.row)
        found.append(try_step(measured, step, parameters, partial(one_pair, trainer, place, {})))
    place = most_entangled(found)
    tokens = measure_tokens(examples[place], one_pair(trainer, place, {}), parameters)
    session.say(f"gradients: measured in {time.perf_counter() - started:.1f} s")
    return GradientFindings(method_name(objective), [0] * len(found), found, tokens)


def check_rows(roles: Sequence[str], source: str) -> None:
    """Stop where the rows are no pairs."""
    if not set(ROLES) <= set(roles):
        raise UsageError(f"--gradients compares the answers of pairs, and the rows of {source} have {' and '.join(roles)}")


def _no_metrics(pair: Pair) -> Measures:
    return {}
