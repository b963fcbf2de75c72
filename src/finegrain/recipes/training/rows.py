"""The rows a job trains on and those it is tested on: loaded, gated, held out, and the order they are visited in."""

import numpy as np

from finegrain.data.holdout import split_holdout, warn_few
from finegrain.data.mismatch import add_mismatched
from finegrain.data.records import Shape
from finegrain.data.store import ExampleStore, token_lengths
from finegrain.recipes.session import Session, load_data
from finegrain.recipes.training.job import Job
from finegrain.train.batches import Plan
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.distributed import world


def rows_of(session: Session, job: Job, contract: Contract) -> tuple[ExampleStore, ExampleStore]:
    """(training, evaluation) examples in the shape the objective reads, with the sides it needs."""
    named = None if contract.shape is None else Shape(contract.shape)
    shape = named or (Shape.PREFERENCE if "chosen" in contract.all_roles else Shape.UNPAIRED if "label" in contract.needs else Shape.DEMONSTRATION)
    loaded = load_data(session, job.data, shape, limit=job.common.limit, gate=job.gate)
    session.gates["gate.json"] = loaded.gate
    session.record.data = loaded.report
    if job.common.eval is not None:
        held = load_data(session, job.common.eval, shape, limit=None, gate=job.gate)
        session.gates["gate-eval.json"] = held.gate
        session.record.eval_data = held.report
        train, apart, words = loaded.examples, held.examples, warn_few(len(held.examples))
    else:
        train, apart, words = split_holdout(loaded.examples, job.training.holdout, job.common.seed)
    session.say(f"data: {len(train)} rows to train, {len(apart)} held out")
    for line in words:
        session.say(line)
    session.record.holdout_words = list(words)
    if "mismatched" not in contract.all_roles:
        return train, apart
    several = len(np.unique(apart.prompt_text_keys)) > 1  # held-out rows of one prompt have no mismatched answer, and so no loss
    return add_mismatched(train), add_mismatched(apart) if several else apart


def longest(train: ExampleStore, held_out: ExampleStore, contract: Contract) -> int:
    """Tokens of the longest prompt with one answer."""
    held_roles = roles_of(held_out, contract)
    return max(_longest(train, contract.all_roles), _longest(held_out, held_roles))


def roles_of(held_out: ExampleStore, contract: Contract) -> tuple[str, ...]:
    """The sides any pass reads that the held-out rows have."""
    if not len(held_out):
        return contract.roles
    return tuple(role for role in contract.all_roles if role in held_out[0].responses)


def _longest(examples: ExampleStore, roles: tuple[str, ...]) -> int:
    prompts, answers = token_lengths(examples, roles)
    return int(np.max(prompts + np.max(answers, axis=0), initial=0))


def plan_of(session: Session, data: TrainingSet, roles: tuple[str, ...]) -> Plan:
    """Which rows every step reads."""
    training = session.training
    return Plan(
        tokens=data.packed_tokens(roles),
        batch_size=training.batch_size,
        epochs=training.epochs,
        seed=session.common.seed,
        micro_tokens=session.precision.micro_tokens,
        world=world(),
        max_steps=session.common.max_steps,
    )
