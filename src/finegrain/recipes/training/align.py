"""Train a policy offline with any objective and any credit: the job behind `prefer`, `sft` and `reward`, read top to bottom.

Job -> open_job -> Opened (nothing is written yet) -> prepare -> Prepared -> fit -> Fitted -> publish -> what the command prints.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from finegrain.configure import method_name
from finegrain.errors import UsageError
from finegrain.evaluate.marked_tokens import describe_marks, read_marks
from finegrain.generate.hf import generate_greedy
from finegrain.recipes.inspection.pairs import PairSnapshot, choose_rows, snapshot_before, write_inspected_pairs
from finegrain.recipes.session import Session, identify, identify_products, open_session, prepare_scorer, stamp, tell_changes
from finegrain.recipes.training.columns import Columns, make_columns
from finegrain.recipes.training.data import Rows, column_that_draws, load_rows, longest, make_plan
from finegrain.recipes.training.dry_run import estimate
from finegrain.recipes.training.frozen_features import on_features
from finegrain.recipes.training.job import Job, check_job, sources_of
from finegrain.recipes.training.keeping import criterion_of, selection_of
from finegrain.recipes.training.meta_step import Rise
from finegrain.recipes.training.prior_weight import settle_prior
from finegrain.recipes.training.publishing import Answers, check_saving, describe_tables, record_failure, write_results
from finegrain.recipes.training.reading import describe_reading, train_only
from finegrain.recipes.training.stage_context import check_rewards, run_stage
from finegrain.recipes.training.trainer import attach_head, build_modules, build_trainer, peak_rate, unshard
from finegrain.recipes.training.watchers import describe_start, open_watchers
from finegrain.report.page import write_report
from finegrain.run_record import RunRecord
from finegrain.runs import RunDirectory
from finegrain.train.batches import Plan
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.contract import Contract
from finegrain.train.diagnosis import COST, Diagnosis
from finegrain.train.distributed import barrier, rank, world
from finegrain.train.loop import Trainer, no_displacement
from finegrain.train.read_contract import contract_of
from finegrain.train.run import Recorder, train
from finegrain.train.selection import Criterion, Selection
from finegrain.train.sharding import empty_copy
from finegrain.train.trainer import embedding_rate
from finegrain.types import Json

ANSWER_TOKENS = 64
"""Length of the answers given before and after training."""

Watch = Callable[[Trainer, dict[str, Any]], None]
"""Called with the trainer and the logged line of the step just taken."""


@dataclass(frozen=True)
class Opened:
    """A job with its model and its rows, checked; nothing is written yet."""

    job: Job
    contract: Contract
    criterion: Criterion | None
    """What makes a step the better one, where one is to be kept."""
    directory: RunDirectory
    session: Session
    rows: Rows
    plan: Plan
    rise: Rise | None
    """Moves the parameters while a step's gradient is taken; None: they stay."""
    rate: float
    """Peak learning rate."""
    record: RunRecord


@dataclass(frozen=True)
class Prepared:
    """A job before its first step: columns made, head attached, what is compared afterwards looked at."""

    opened: Opened
    columns: Columns
    answers: Answers
    """As the start model gives them."""
    snapshot: PairSnapshot | None
    record: RunRecord


@dataclass(frozen=True)
class Fitted:
    """A job after its last step, its parameters whole and those that are kept."""

    trainer: Trainer
    lines: list[dict[str, Any]]
    """What the steps logged."""
    seconds: float
    """From the first forward pass to the last step."""
    selection: Selection | None
    facts: Json
    """For run.json: which step is kept, and why training stopped."""


def align(job: Job, watch: Watch | None = None) -> dict[str, Any]:
    """Run the job; returns what is printed as the last line of stdout. `watch` sees the trainer after every step, and may not change it."""
    opened = open_job(job)
    if job.common.dry_run:
        return estimate(opened.session, opened.contract, opened.plan, opened.rate)
    with ExitStack() as held:
        prepared = prepare(opened, held)
        return publish(prepared, fit(prepared, watch))


def open_job(job: Job) -> Opened:
    """Check the job, load its model and its rows."""
    contract, training = contract_of(job.objective, job.common.seed), job.training
    check_job(job, contract)
    criterion = criterion_of(job, contract)
    directory = RunDirectory(job.out)
    if not job.common.dry_run:
        directory.check_apart(sources_of(job))
        directory.check(job.settings, resume=job.common.resume)
    session = open_session(
        job.model,
        job.common,
        seed=job.common.seed,
        tokenizer=job.tokenizer,
        lora=job.lora,
        micro_tokens=training.micro_tokens,
        shard=training.shard,
        trust_remote_code=training.trust_remote_code,
        frozen=contract.frozen_backbone,
    )
    if training.shard and world() == 1:
        raise UsageError("--shard splits a model over processes, and there is one; start them with torchrun --nproc_per_node N -m finegrain ...")
    trained = train_only(session, training.train_only)
    facts = job.artifact.check(session)
    check_saving(session, job)
    rows = load_rows(session, job, contract)
    rise = None if job.displacement is None else job.displacement(session)
    rate = peak_rate(session, job.common.lr, job.optim, contract)
    record = RunRecord(command=job.command, settings=job.settings, samples=None if rise is None else rise.report).plus({**rows.facts, **facts})
    plan = make_plan(session, job, contract, rows, staged=False)
    record = record.plus({**trained, **describe_reading(session, plan, column_that_draws(job, contract))})
    return Opened(job, contract, criterion, directory, session, rows, plan, rise, rate, record)


def prepare(opened: Opened, held: ExitStack) -> Prepared:
    """Take the run directory, make the scorer, its head and the columns, and look at what is compared after training."""
    job, session, contract, rows = opened.job, opened.session, opened.contract, opened.rows
    record = _begin(opened, held)
    answered = job.training.samples if job.artifact.head is None else 0
    prompts = [example.prompt for example in (rows.held_out or rows.train)[:answered]]
    session.start_clock()
    before = generate_greedy(session.policy.model, session.policy.tokenizer, prompts, max_new_tokens=ANSWER_TOKENS)
    most = max(longest(rows, contract), 0 if opened.rise is None else opened.rise.longest)
    scorer = prepare_scorer(session, most, gradient_checkpointing=job.training.gradient_checkpointing)
    facts = attach_head(session, job, contract, scorer) if contract.outputs else {}
    job, contract, chosen_prior = settle_prior(session, job, contract, rows, opened.rate)
    opened = replace(opened, job=job, contract=contract)
    facts |= chosen_prior
    staged, staged_held, stage = run_stage(session, contract, rows, opened.directory, resume=job.common.resume)
    if stage:
        rows = replace(rows, staged=staged, staged_held=staged_held)
        opened = replace(opened, rows=rows, plan=make_plan(session, job, contract, rows, staged=True))
        facts |= {**stage, **describe_reading(session, opened.plan, column_that_draws(job, contract))}
    columns = make_columns(session, job, contract, rows, opened.plan)
    chosen = choose_rows(opened.plan.visited(), columns.train, columns.held_out, job.training.examined) if rank() == 0 else []
    snapshot = snapshot_before(session, scorer, chosen, contract, columns.train, columns.held_out) if chosen else None
    return Prepared(opened, columns, Answers(prompts, before), snapshot, record.plus({**facts, **columns.facts}))


def _begin(opened: Opened, held: ExitStack) -> RunRecord:
    """Lock the run directory, once it is known to be free or this run's own, and write down that the run has begun."""
    job, session, directory = opened.job, opened.session, opened.directory
    record = opened.record.plus({"model": identify(session), "engine": identify_products(session), "status": "running"})
    directory.check_data(record.data or {})
    directory.check_data(record.eval_data or {}, "eval_data")
    directory.check_model(record.model or {})
    if job.common.resume and opened.contract.stage is not None:
        check_rewards(session, opened.rows, directory)
    record.changed = tell_changes(session, record, directory, resume=job.common.resume) or None
    if rank() == 0:
        held.enter_context(directory.locked())
        directory.check(job.settings, resume=job.common.resume)
    barrier()
    if rank() == 0:
        directory.write_record(stamp(session, record))
        for name, found in opened.rows.gates.items():
            directory.write_json(name, found)
    return record


def fit(prepared: Prepared, watch: Watch | None) -> Fitted:
    """Take all steps, and put the parameters that are kept into the trainer."""
    opened, columns = prepared.opened, prepared.columns
    job, session, directory, plan = opened.job, opened.session, opened.directory, opened.plan
    shell = empty_copy(session.policy.model) if job.training.shard else None
    contract = build_modules(session, opened.contract)
    trainer = build_trainer(session, job, contract, columns.train, opened.rate, len(plan))
    trainer = replace(trainer, gradient_point=opened.rise or no_displacement)
    export = lambda folder: job.artifact.save(session, contract, folder)
    with open_watchers(job, job.training.track, len(plan), session.say) as watchers:
        seen = [] if watch is None else [lambda line: watch(trainer, line)]
        selection = selection_of(job, opened.criterion, trainer, columns.held_out)
        saved, resumable = job.training.save_every, not job.training.shard
        recorder = Recorder(directory, Checkpoints(job.out), export, saved, resumable, selection, [*watchers, *seen], _diagnosis(opened))
        with record_failure(session, directory, prepared.record), on_features(session, trainer, plan) as (learner, steps):
            lines = train(learner, steps, recorder, resume=job.common.resume)
    seconds, facts = session.seconds(), Json()
    last = int(lines[-1]["step"]) if lines else 0
    if selection is not None:
        selection.restore_best(trainer, last)
        facts["kept"] = selection.kept(last)
        if stopped := selection.stopped(last, len(plan)):
            facts["stopped"] = stopped
            session.say(stopped)
    return Fitted(trainer if shell is None else unshard(session, trainer, shell), lines, seconds, selection, facts)


def _diagnosis(opened: Opened) -> Diagnosis | None:
    """What measures gradients while training, where it was asked for; its cost is said."""
    every = opened.job.training.diagnose_every
    if not every:
        return None
    opened.session.say(f"--diagnose-every {every}: a measurement {COST}")
    return Diagnosis(every, method_name(opened.job.objective), opened.directory.append_gradients)


def publish(prepared: Prepared, fitted: Fitted) -> dict[str, Any]:
    """Evaluate the finished model, write it with its card, record and report; returns what is printed."""
    opened, trainer, lines = prepared.opened, fitted.trainer, fitted.lines
    job, session, contract, rows, directory = opened.job, opened.session, opened.contract, opened.rows, opened.directory
    snapshot = prepared.snapshot
    evaluation = job.artifact.conclude(trainer, prepared.columns.held_out, None if snapshot is None else snapshot.read_held_out)
    for line in describe_marks(read_marks(evaluation)):
        session.say(f"held out: {line}")
    answers = prepared.answers
    after = generate_greedy(session.policy.model, session.policy.tokenizer, answers.prompts, max_new_tokens=ANSWER_TOKENS)
    results = {
        "status": "finished",
        "train_seconds": round(fitted.seconds, 3),
        "steps": int(lines[-1]["step"]) if lines else 0,
        "pairs" if "chosen" in contract.roles else "rows": len(rows.train),
        "tokens": int(sum(line["num_tokens"] for line in lines)),
        "learning_rate": opened.rate,
        "embedding_learning_rate": embedding_rate(job.optim, contract, opened.rate),
        "evaluation": evaluation,
        **describe_start(lines),
        **describe_tables(trainer.state, prepared.record.categories or {}),
        "last": lines[-1] if lines else {},
    }
    if rank() == 0:
        if snapshot is not None:
            write_inspected_pairs(snapshot, session, trainer.scorer, directory, job.data, job.common.eval, job.artifact.head)
        record = prepared.record.plus({**fitted.facts, **results})
        write_results(session, job, trainer.contract, directory, record, answers._replace(after=after), rows.held_out or rows.train)
        if fitted.selection is not None:
            fitted.selection.discard()
        session.say(f"report: {write_report(directory.path)}")
    return {"out": str(job.out), **{key: results[key] for key in ("status", "steps", "train_seconds")}, "evaluation": evaluation}
