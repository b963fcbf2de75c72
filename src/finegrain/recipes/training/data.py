"""The data of a job: rows to train and to hold out, the order they are visited in, and the columns that are made beside them before training.

Columns are reference values, credit, and what an objective or a reward model makes of its own: segments, steps, classes, targets. Margins
come in units of their own in public sets, and a loss counts in nats: those of the training rows are scaled before any loss reads them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finegrain.commands.settings import MarginScale
from finegrain.credit.declarations import read_credit
from finegrain.credit.summary import summarise
from finegrain.data.holdout import split_holdout, warn_few
from finegrain.data.records import Shape
from finegrain.data.store import ExampleStore, longest_row
from finegrain.errors import DataError
from finegrain.models.scorer import Scorer
from finegrain.recipes.session import Session, load_data
from finegrain.recipes.training.answer_context import RunAnswers
from finegrain.recipes.training.credit_context import RunCredit
from finegrain.recipes.training.job import Job
from finegrain.runs import read_record
from finegrain.train.batches import Plan
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.distributed import world
from finegrain.types import Credit, Json, Ragged, TokenColumns

MARGIN = "margin"
"""The column by which a pair's scores shall differ."""
IN_NATS = "strength_mean"
"""A column of `finegrain curate`, whose margins are differences of scores and stay as they are."""


@dataclass(frozen=True)
class Rows:
    """Examples in the shape the objective reads, with the sides it needs."""

    train: ExampleStore
    held_out: ExampleStore
    facts: Json
    """For run.json: reports of the data, what is to be known of the held-out rows, the scale of the margins."""
    gates: Json
    """What the data gate found, by the name of its file."""
    margin_scale: float = 1.0


class Columns(NamedTuple):
    """The rows with the columns made for them."""

    train: TrainingSet
    held_out: TrainingSet
    facts: Json
    """For run.json: of the credit, and what methods counted."""


def load_rows(session: Session, job: Job, contract: Contract) -> Rows:
    """The rows of --data and --eval, gated, held out, their margins scaled."""
    named = None if contract.shape is None else Shape(contract.shape)
    shape = named or (Shape.PREFERENCE if "chosen" in contract.all_roles else Shape.UNPAIRED if "label" in contract.needs else Shape.DEMONSTRATION)
    loaded = load_data(session, job.data, shape, limit=job.common.limit, gate=job.gate)
    facts: Json = {"data": loaded.report}
    gates = {"gate.json": loaded.gate}
    if job.common.eval is not None:
        held = load_data(session, job.common.eval, shape, limit=None, gate=job.gate)
        facts["eval_data"], gates["gate-eval.json"] = held.report, held.gate
        train, apart, words = loaded.examples, held.examples, warn_few(len(held.examples))
    else:
        train, apart, words = split_holdout(loaded.examples, job.training.holdout, job.common.seed)
    session.say(f"data: {len(train)} rows to train, {len(apart)} held out")
    for line in words:
        session.say(line)
    facts["holdout_words"] = list(words)
    if "mismatched" in contract.all_roles:
        several = len(np.unique(apart.prompt_text_keys)) > 1  # held-out rows of one prompt have no mismatched answer, and so no loss
        train, apart = add_mismatched(train), add_mismatched(apart) if several else apart
    if job.margin_scale is None or "rejected" not in contract.roles:
        return Rows(train, apart, facts, gates)
    margin = scale_margins(session, job.margin_scale, train)
    return Rows(train, apart, {**facts, "margin": margin} if margin else facts, gates, margin.get("scale", 1.0))


def add_mismatched(examples: ExampleStore) -> ExampleStore:
    """Every example with the role `mismatched`: the answer of the next example, in data order, that has another prompt.

    KTO estimates a KL from them. Fixed by the data alone, so that reference values of mismatched answers can be cached across epochs and seeds.
    """
    keys = examples.prompt_text_keys
    last_of_run = np.flatnonzero(keys != np.roll(keys, -1))
    if not len(last_of_run):
        raise DataError("all rows share one prompt, so no answer is a mismatched one; this objective needs several prompts")
    run = np.searchsorted(last_of_run, np.arange(len(keys))) % len(last_of_run)
    return examples.lend("answer", (last_of_run[run] + 1) % len(keys), "mismatched")


def longest(rows: Rows, contract: Contract) -> int:
    """Tokens of the longest prompt with one answer."""
    return max(longest_row(rows.train, contract.all_roles), longest_row(rows.held_out, roles_of(rows.held_out, contract)))


def roles_of(held_out: ExampleStore, contract: Contract) -> tuple[str, ...]:
    """The sides any pass reads that the held-out rows have."""
    if not len(held_out):
        return contract.roles
    return tuple(role for role in contract.all_roles if role in held_out[0].responses)


def make_plan(session: Session, job: Job, contract: Contract, examples: ExampleStore) -> Plan:
    """Which rows every step reads."""
    return Plan(
        tokens=TrainingSet(examples).packed_tokens(contract.roles),
        batch_size=job.training.batch_size,
        epochs=job.training.epochs,
        seed=job.common.seed,
        micro_tokens=session.precision.micro_tokens,
        world=world(),
        max_steps=job.common.max_steps,
    )


def scale_margins(session: Session, asked: MarginScale, rows: ExampleStore) -> Json:
    """Find the scale on the training rows and say it: `scale` and what it is made from; {} where no row asks for a margin."""
    if MARGIN not in rows.columns:
        return {}
    sizes = np.abs(rows.column(MARGIN))
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return {}
    median, largest = float(np.median(sizes)), float(sizes.max())
    curated = asked == "median" and IN_NATS in (*rows.columns, *rows.files.partial)
    scale = 1.0 if asked == "none" or curated else 1 / median if asked == "median" else float(asked)
    done = "taken as they are" if scale == 1.0 else f"scaled by {scale:.3g}, to {scale * median:.3g} and {scale * largest:.3g} nats"
    session.say(
        f"margin: the scores of {len(sizes)} pairs shall differ by the column margin, {median:.3g} at the median and {largest:.3g} at most; "
        f"{done} (--margin-scale median, none or a number)"
    )
    return {"scale": scale, "asked": asked, "median": median, "largest": largest, "pairs": len(sizes)}


def margins_as_trained(run: Path, rows: ExampleStore) -> dict[str, np.ndarray]:
    """The column as the run in this folder scaled it; as it is where the folder has no record."""
    if MARGIN not in rows.columns:
        return {}
    found = read_record(run).margin if (run / "run.json").exists() else None
    return {MARGIN: float((found or {}).get("scale", 1.0)) * rows.column(MARGIN)}


def make_columns(session: Session, job: Job, contract: Contract, rows: Rows, plan: Plan) -> Columns:
    """The training rows with their credit, or with what the objective and the artifact make; the held-out rows with what the objective reads."""
    maker = _Maker(session, contract, rows)
    train = maker.train(job, plan) if job.credit is None else maker.with_credit(job, job.credit)
    return Columns(train, maker.held_out(), {**maker.facts, **maker.counted})


@dataclass(frozen=True)
class _Maker:
    """What the columns are made from, and what is to be said of them."""

    session: Session
    contract: Contract
    rows: Rows
    facts: Json = field(default_factory=dict)
    counted: dict[str, dict[str, int]] = field(default_factory=dict)
    """What methods count of training and held-out answers together."""

    @property
    def scorer(self) -> Scorer:
        assert self.session.scorer is not None
        return self.session.scorer

    def train(self, job: Job, plan: Plan) -> TrainingSet:
        """Reference values of the rows that a step visits, and columns of all."""
        examples, visited = self.rows.train, plan.visited()
        values = self._reference(examples.take(visited), self.contract.all_roles)
        reference = {role: _scattered(values[role], visited, len(examples)) for role in values}
        numbers, made = self._numbers(examples), job.artifact.columns(self.session, examples)
        self.facts.update(made.facts)
        return TrainingSet(examples, reference, self._prepared(examples, trains=True), {**numbers, **made.numbers})

    def with_credit(self, job: Job, credit: Credit) -> TrainingSet:
        """Credit may read every row and its reference values, whether a step visits the row or not."""
        session, examples, contract = self.session, self.rows.train, self.contract
        reference = self._values(examples, contract.all_roles)
        started = time.perf_counter()
        context = RunCredit(session, examples, contract.roles, reference, job.common.seed, self.facts)
        columns: Mapping[str, TokenColumns] = credit.prepare(context)
        self.facts["credit"] = summarise(columns, {role: context.masks(role) for role in contract.roles}, context.signs)
        self.facts["credit_weight"] = read_credit(credit).weight_means.name.lower()
        self.facts["credit_seconds"] = round(time.perf_counter() - started, 3)
        return TrainingSet(examples, reference if "reference" in contract.needs else {}, columns)

    def held_out(self) -> TrainingSet:
        """Credit is for training alone."""
        examples = self.rows.held_out
        reference = self._reference(examples, roles_of(examples, self.contract))
        numbers = self._numbers(examples)
        return TrainingSet(examples, reference, self._prepared(examples, trains=False), numbers)

    def _numbers(self, examples: ExampleStore) -> dict[str, np.ndarray]:
        """Scaled margins, and what the objective makes of the rows' own numbers: classes of ratings and their weights."""
        found = {MARGIN: self.rows.margin_scale * examples.column(MARGIN)} if "margin" in self.rows.facts and MARGIN in examples.columns else {}
        if self.contract.row_columns is None or not len(examples):
            return found
        columns = [example.columns for example in examples]
        return {**found, **self.contract.row_columns({name: np.array([own[name] for own in columns]) for name in examples.columns})}

    def _prepared(self, examples: ExampleStore, *, trains: bool) -> dict[str, TokenColumns]:
        """Token columns that the objective itself makes before training: segments, steps, changed tokens."""
        if self.contract.prepare is None or not len(examples):
            return {}
        return dict(self.contract.prepare(RunAnswers(self.session, examples, self.contract.roles, trains, self.counted)))

    def _reference(self, rows: ExampleStore, roles: Sequence[str]) -> dict[str, Ragged]:
        """Reference values of the rows where the objective needs them."""
        return self._values(rows, roles) if self.contract.needs & {"reference", "reward"} else {}

    def _values(self, rows: ExampleStore, roles: Sequence[str]) -> dict[str, Ragged]:
        session = self.session
        return session.cache.values(session.policy, self.scorer, rows, roles, session.precision, session.usage)


def _scattered(values: Ragged, places: np.ndarray, count: int) -> Ragged:
    """Values of the visited rows at their places; rows no step reads stay empty."""
    whole: Ragged = [values[0][:0]] * count if values else []
    for place, value in zip(places, values, strict=True):
        whole[place] = value
    return whole
