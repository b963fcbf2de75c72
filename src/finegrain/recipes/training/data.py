"""The data of a job: rows to train and to hold out, their numbers, and the order in which they are visited.

Margins come in units of their own in public sets, and a loss counts in nats: those of the training rows are scaled before any loss reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from finegrain.data.categories import Categories
from finegrain.data.columns import list_names
from finegrain.data.holdout import split_holdout, warn_few
from finegrain.data.records import Shape
from finegrain.data.store import ExampleStore, longest_row
from finegrain.errors import DataError, UsageError
from finegrain.recipes.session import Session, load_data
from finegrain.recipes.training.job import Job
from finegrain.recipes.training.margins import MARGIN, scale_margins
from finegrain.recipes.training.reading import find_chance, find_second
from finegrain.train.batches import Plan
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.distributed import world
from finegrain.types import Json


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
    categories: Mapping[str, int] = field(default_factory=dict)
    """Number of texts of the columns that the objective reads as categories."""
    second: np.ndarray | None = None
    """(N,) True for training rows of a second stream; None: there is none."""
    staged: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(N,) numbers that the objective's stage made of the training rows."""
    staged_held: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The same of the held-out rows."""


def shape_of(contract: Contract) -> Shape:
    """The form of the data that an objective reads: as it declares it, else by its roles."""
    named = None if contract.shape is None else Shape(contract.shape)
    return named or (Shape.PREFERENCE if "chosen" in contract.all_roles else Shape.UNPAIRED if "label" in contract.needs else Shape.DEMONSTRATION)


def load_rows(session: Session, job: Job, contract: Contract) -> Rows:
    """The rows of --data and --eval, gated, held out, their margins scaled."""
    shape = shape_of(contract)
    categories = Categories(contract.categories)
    loaded = load_data(session, job.data, shape, limit=job.common.limit, gate=job.gate, categories=categories, assumed=contract.assumed)
    check_columns(contract, loaded.examples, "--data")
    facts: Json = {"data": loaded.report}
    gates = {"gate.json": loaded.gate}
    if job.common.eval is not None:
        held = load_data(session, job.common.eval, shape, limit=None, gate=job.gate, categories=categories, assumed=contract.assumed)
        check_columns(contract, held.examples, "--eval")
        facts["eval_data"], gates["gate-eval.json"] = held.report, held.gate
        train, apart, words = loaded.examples, held.examples, warn_few(len(held.examples))
    else:
        train, apart, words = split_holdout(loaded.examples, job.training.holdout, job.common.seed)
    if shape is Shape.RANKED:
        facts |= describe_ranked(session, contract, train, apart)
        train, apart = train.fill(contract.roles), apart.fill(contract.roles)
    second = find_second(loaded, train, job.training)
    if contract.categories:
        facts |= {"categories": categories.as_json(), "texts_in_one_row": count_single(session, contract, train)}
    session.say(f"data: {len(train)} rows to train, {len(apart)} held out")
    for line in words:
        session.say(line)
    facts["holdout_words"] = list(words)
    if "mismatched" in contract.all_roles:
        several = len(np.unique(apart.prompt_text_keys)) > 1  # held-out rows of one prompt have no mismatched answer, and so no loss
        train, apart = add_mismatched(train), add_mismatched(apart) if several else apart
    if job.margin_scale is None or "rejected" not in contract.roles:
        return Rows(train, apart, facts, gates, categories=categories.counts(), second=second)
    margin = scale_margins(session, job.margin_scale, train)
    return Rows(train, apart, {**facts, "margin": margin} if margin else facts, gates, margin.get("scale", 1.0), categories.counts(), second)


def describe_ranked(session: Session, contract: Contract, rows: ExampleStore, held_out: ExampleStore) -> Json:
    """Training rows by their number of ranked answers, and those that have more than the objective reads, which is told.

    Also told: held-out rows whose rewards are ranks where those of the training rows are scores, or the reverse.
    """
    lengths = np.stack([rows.answer_lengths(role) > 0 for role in rows.roles]).sum(0)
    more = int((lengths > len(contract.roles)).sum())
    if more:
        session.say(f"ranked answers: {more} of {len(rows)} rows have more than the {len(contract.roles)} that {contract.name} reads, the best first")
    found = {str(number): int((lengths == number).sum()) for number in np.unique(lengths)}
    scored, held_out_scored = (all(f"score/{role}" in part.columns for role in part.roles) for part in (rows, held_out))
    words = {True: "scores", False: "ranks alone"}
    session.say(f"ranked answers: {min(lengths)} to {max(lengths)} a row, with {words[scored]}")
    facts = {"rows_by_answers": found, "read": len(contract.roles), "rows_with_more": more, "scored": scored}
    if len(held_out) and scored != held_out_scored:
        session.say(f"ranked answers: held-out rows have {words[held_out_scored]}, so their loss has another scale than that of the training rows")
        facts["held_out_scored"] = held_out_scored
    return {"ranked_answers": facts}


def count_single(session: Session, contract: Contract, rows: ExampleStore) -> dict[str, int]:
    """By text column, how many of its texts stand in one row alone: of them an objective learns next to nothing, which is told."""
    found = {}
    for name in contract.categories:
        _, rows_of = np.unique(rows.column(name), return_counts=True)
        found[name] = int((rows_of == 1).sum())
        if found[name]:
            session.say(f"{name}: {found[name]} of {len(rows_of)} texts stand in one training row alone, of which {contract.name} can learn little")
    return found


def check_columns(contract: Contract, rows: ExampleStore, option: str) -> None:
    """Raises DataError where rows lack a column that the objective reads, or have one that it makes."""
    if taken := sorted(set(contract.made) & {*rows.columns, *rows.files.partial}):
        raise DataError(f"{option} has a column {taken[0]}, which {contract.name} makes itself; give it another name")
    for name in (*contract.columns, *contract.categories):
        if name in rows.columns:
            continue
        some = "some rows" if name in rows.files.partial else "the rows"
        kind = "text" if name in contract.categories else "number"
        found = f"numbers found: {list_names(rows.columns)}" if rows.columns else "they have no column of numbers"
        raise DataError(f"{contract.name} reads the column {name}, and {some} of {option} have no {kind} there; {found}")


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


def make_plan(session: Session, job: Job, contract: Contract, rows: Rows, *, staged: bool) -> Plan:
    """Which rows every step reads; before an objective's stage nothing is known of what draws them."""
    examples, by = rows.train, column_that_draws(job, contract)
    chance = None if by is None or not (staged or contract.stage is None) else find_chance(by, row_numbers(rows, contract), rows.second)
    return Plan(
        tokens=TrainingSet(examples).packed_tokens(contract.roles),
        batch_size=job.training.batch_size,
        epochs=job.training.epochs,
        seed=job.common.seed,
        micro_tokens=session.precision.micro_tokens,
        world=world(),
        max_steps=job.common.max_steps,
        chance=chance,
        second=rows.second,
        second_share=job.training.second_share,
    )


def column_that_draws(job: Job, contract: Contract) -> str | None:
    """The column by which rows are drawn: as asked, or as the objective wants it."""
    return job.training.sample_by or contract.sample_by


def row_numbers(rows: Rows, contract: Contract) -> dict[str, np.ndarray]:
    """All numbers of the training rows: their own, margins scaled, and what the objective makes of them."""
    return {name: rows.train.column(name) for name in rows.train.columns} | made_numbers(rows, contract, rows.train, rows.staged)


def made_numbers(rows: Rows, contract: Contract, examples: ExampleStore, staged: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scaled margins, what the objective's stage made, and what the objective makes of the rows' numbers: classes of ratings and their weights."""
    found = {MARGIN: rows.margin_scale * examples.column(MARGIN)} if "margin" in rows.facts and MARGIN in examples.columns else {}
    found |= staged
    if contract.row_columns is not None and len(examples):
        found |= contract.row_columns({name: examples.column(name) for name in examples.columns} | dict(staged))
    if len(examples) and (missing := sorted(set(contract.made) - found.keys())):
        raise UsageError(f"{contract.name} declares that it makes {missing[0]}, and made {list_names(found) or 'nothing'}")
    return found
