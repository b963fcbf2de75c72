"""What stands beside the rows before training: reference values, credit, and the columns an objective makes of its own."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from finegrain.credit.declarations import read_credit
from finegrain.credit.summary import summarise
from finegrain.data.store import ExampleStore
from finegrain.models.scorer import Scorer
from finegrain.recipes.session import Session
from finegrain.recipes.training.answer_context import RunAnswers
from finegrain.recipes.training.credit_context import RunCredit
from finegrain.recipes.training.job import Job
from finegrain.recipes.training.margins import margins_of
from finegrain.recipes.training.rows import plan_of, roles_of
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.types import Credit, Ragged, TokenColumns


def training_set(session: Session, job: Job, contract: Contract, scorer: Scorer, examples: ExampleStore) -> TrainingSet:
    """The training rows with their reference values and their credit, or the columns that the objective and the product make."""
    if job.credit is not None:
        return _with_credit(session, job.credit, contract, scorer, examples)
    visited = plan_of(session, TrainingSet(examples), contract.roles).visited()
    values = _reference(session, contract, scorer, examples.take(visited), contract.all_roles)
    reference = {role: _scattered(values[role], visited, len(examples)) for role in values}
    numbers = {**margins_of(session, examples), **_row_columns(contract, examples), **job.artifact.columns(session, examples)}
    return TrainingSet(examples, reference, _prepared(session, contract, examples, trains=True), numbers)


def held_out_set(session: Session, contract: Contract, scorer: Scorer, examples: ExampleStore) -> TrainingSet:
    """The held-out rows with what the objective reads; credit is for training alone."""
    reference = _reference(session, contract, scorer, examples, roles_of(examples, contract))
    numbers = {**margins_of(session, examples), **_row_columns(contract, examples)}
    return TrainingSet(examples, reference, _prepared(session, contract, examples, trains=False), numbers)


def _with_credit(session: Session, credit: Credit, contract: Contract, scorer: Scorer, examples: ExampleStore) -> TrainingSet:
    """Credit may read every row and its reference values, whether a step visits the row or not."""
    reference = session.cache.values(session.policy, scorer, examples, contract.all_roles, session.precision, session.usage)
    started = time.perf_counter()
    context = RunCredit(session, examples, contract.roles, reference)
    columns: Mapping[str, TokenColumns] = credit.prepare(context)
    session.record.credit = summarise(columns, {role: context.masks(role) for role in contract.roles}, context.signs)
    session.record.credit_weight = read_credit(credit).weight_means.name.lower()
    session.record.credit_seconds = round(time.perf_counter() - started, 3)
    return TrainingSet(examples, reference if "reference" in contract.needs else {}, columns)


def _prepared(session: Session, contract: Contract, examples: ExampleStore, *, trains: bool) -> dict[str, TokenColumns]:
    """Token columns that the objective itself makes before training: segments, steps, changed tokens."""
    if contract.prepare is None or not len(examples):
        return {}
    return dict(contract.prepare(RunAnswers(session, examples, contract.roles, trains)))


def _row_columns(contract: Contract, examples: ExampleStore) -> dict[str, np.ndarray]:
    """Numbers of the rows that the objective makes of their own before training: classes of ratings and their weights."""
    if contract.row_columns is None or not len(examples):
        return {}
    columns = [example.columns for example in examples]
    return contract.row_columns({name: np.array([own[name] for own in columns]) for name in examples.columns})


def _reference(session: Session, contract: Contract, scorer: Scorer, rows: ExampleStore, roles: Sequence[str]) -> dict[str, Ragged]:
    """Reference values of the rows where the objective needs them."""
    if not contract.needs & {"reference", "reward"}:
        return {}
    return session.cache.values(session.policy, scorer, rows, roles, session.precision, session.usage)


def _scattered(values: Ragged, places: np.ndarray, count: int) -> Ragged:
    """Values of the visited rows at their places; rows no step reads stay empty."""
    whole: Ragged = [values[0][:0]] * count if values else []
    for place, value in zip(places, values, strict=True):
        whole[place] = value
    return whole
