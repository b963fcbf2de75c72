"""The columns that are made beside the rows of a job before training.

They are reference values, credit, and what an objective or a reward model makes of its own: segments, steps, classes, targets.
"""

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from finegrain.credit.context import Credit
from finegrain.credit.declarations import read_credit
from finegrain.credit.summary import summarise
from finegrain.data.store import ExampleStore
from finegrain.errors import UsageError
from finegrain.models.scorer import Scorer
from finegrain.recipes.session import Session
from finegrain.recipes.training.answer_context import RunAnswers
from finegrain.recipes.training.credit_context import RunCredit
from finegrain.recipes.training.data import Rows, made_numbers, roles_of
from finegrain.recipes.training.job import Job
from finegrain.train.batches import Plan
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.types import SECOND_STREAM, Json, Ragged, TokenColumns


class Columns(NamedTuple):
    """The rows with the columns made for them."""

    train: TrainingSet
    held_out: TrainingSet
    facts: Json
    """For run.json: of the credit, and what methods counted."""


def make_columns(session: Session, job: Job, contract: Contract, rows: Rows, plan: Plan) -> Columns:
    """The training rows with their credit and with what objective and artifact make; the held-out rows with what the objective reads."""
    maker = _Maker(session, contract, rows)
    train, held_out = maker.train(job, plan), maker.held_out()
    facts = {**maker.facts, **maker.counted}
    if unread := describe_unread_spans(job, contract, rows.train, maker.read):
        session.say(unread)
        facts["unread_spans"] = unread
    return Columns(train, held_out, facts)


def describe_unread_spans(job: Job, contract: Contract, examples: ExampleStore, read: Set[str]) -> str:
    """In words, that people marked answers of this run and that it does not learn from their marks; empty where it does, or where nobody did.

    `read`: what its credit and methods have read, `spans` and `scorer`; a checkpoint that judges the answers stands for the marks it learned from.
    """
    annotated = sum(examples.annotated(role) for role in contract.roles)
    if not annotated or read & {"spans", "scorer"}:
        return ""
    if job.credit is not None:
        return f"spans: {annotated} answers are annotated, and neither {contract.name} nor the credit of this run reads the marks"
    how = {
        "prefer": "add objective:token-distillation credit:token-reward --credit.size 1.5" if "chosen" in contract.roles else "add credit:asr",
        "sft": "it trains on marked passages as on all others; add credit:asr, which leaves out what is marked bad",
        "reward": "take head:token loss:span-labels",
    }
    return f"spans: {annotated} answers are annotated, and {contract.name} does not learn from it; {how[job.command]}"


@dataclass(frozen=True)
class _Maker:
    """What the columns are made from, and what is to be said of them."""

    session: Session
    contract: Contract
    rows: Rows
    facts: Json = field(default_factory=dict)
    counted: dict[str, dict[str, int]] = field(default_factory=dict)
    """What methods count of training and held-out answers together."""
    read: set[str] = field(default_factory=set)
    """`spans` once people's marks are read, `scorer` where a checkpoint judges the answers."""

    @property
    def scorer(self) -> Scorer:
        assert self.session.scorer is not None
        return self.session.scorer

    def train(self, job: Job, plan: Plan) -> TrainingSet:
        """Reference values of the rows that a step visits, or of all where a credit may read them; columns of all."""
        examples, visited = self.rows.train, plan.visited()
        if job.credit is None:
            values = self._reference(examples.take(visited), self.contract.all_roles)
            reference = {role: _scattered(values[role], visited, len(examples)) for role in values}
            credited: Mapping[str, TokenColumns] = {}
        else:
            values = self._values(examples, self.contract.all_roles)
            credited = self._credited(job, job.credit, values)
            reference = values if "reference" in self.contract.needs else {}
        numbers, made = made_numbers(self.rows, self.contract, examples, self.rows.staged), job.artifact.columns(self.session, examples)
        self.facts.update(made.facts)
        stream = {} if self.rows.second is None else {SECOND_STREAM: self.rows.second.astype(np.float64)}
        own = self._prepared(examples, trains=True)
        columns = beside_credit(self.contract, own, credited)
        return TrainingSet(examples, reference, columns, {**numbers, **made.numbers, **stream}, self.rows.categories)

    def _credited(self, job: Job, credit: Credit, reference: Mapping[str, Ragged]) -> Mapping[str, TokenColumns]:
        """Credit may read every row and its reference values, whether a step visits the row or not."""
        session, examples, contract = self.session, self.rows.train, self.contract
        started = time.perf_counter()
        context = RunCredit(session, examples, contract.roles, reference, job.common.seed, self.facts, self.read)
        columns: Mapping[str, TokenColumns] = credit.prepare(context)
        self.facts["credit"] = summarise(columns, {role: context.masks(role) for role in contract.roles}, context.signs)
        self.facts["credit_weight"] = read_credit(credit).weight_means.name.lower()
        self.facts["credit_seconds"] = round(time.perf_counter() - started, 3)
        return columns

    def held_out(self) -> TrainingSet:
        """Credit is for training alone."""
        examples = self.rows.held_out
        reference = self._reference(examples, roles_of(examples, self.contract))
        numbers = made_numbers(self.rows, self.contract, examples, self.rows.staged_held)
        return TrainingSet(examples, reference, self._prepared(examples, trains=False), numbers, self.rows.categories)

    def _prepared(self, examples: ExampleStore, *, trains: bool) -> dict[str, TokenColumns]:
        """Token columns that the objective itself makes before training: segments, steps, changed tokens."""
        if self.contract.prepare is None or not len(examples):
            return {}
        made = dict(self.contract.prepare(RunAnswers(self.session, examples, self.contract.roles, trains, self.counted, self.read)))
        filled = {name for own in made.values() for name in own.filled}
        if undeclared := sorted(filled - set(self.contract.token_columns)):
            raise UsageError(f"{self.contract.name} fills the token columns {', '.join(undeclared)} without declaring them in token_columns")
        return made

    def _reference(self, rows: ExampleStore, roles: Sequence[str]) -> dict[str, Ragged]:
        """Reference values of the rows where the objective needs them."""
        return self._values(rows, roles) if self.contract.needs & {"reference", "reward"} else {}

    def _values(self, rows: ExampleStore, roles: Sequence[str]) -> dict[str, Ragged]:
        session = self.session
        return session.cache.values(session.policy, self.scorer, rows, roles, session.precision, session.usage)


def beside_credit(contract: Contract, own: Mapping[str, TokenColumns], credited: Mapping[str, TokenColumns]) -> dict[str, TokenColumns]:
    """An objective's own token columns and those of a credit: the fields that the objective declares are its own, the others the credit's.

    Segments of a credit have done their work once its weights are made; weights or rewards of both contradict each other.
    """
    joined = {**own, **credited}
    for role in own.keys() & credited.keys():
        for name in contract.token_columns:
            if name != "segment" and name in credited[role].filled:
                raise UsageError(f"{contract.name} makes the token {name}s of its answers itself, and the credit makes others; drop the credit")
        joined[role] = replace(credited[role], **{name: getattr(own[role], name) for name in contract.token_columns})
    return joined


def _scattered(values: Ragged, places: np.ndarray, count: int) -> Ragged:
    """Values of the visited rows at their places; rows no step reads stay empty."""
    whole: Ragged = [values[0][:0]] * count if values else []
    for place, value in zip(places, values, strict=True):
        whole[place] = value
    return whole
