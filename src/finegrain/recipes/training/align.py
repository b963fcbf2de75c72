"""Train a policy offline with any objective and any credit: the job behind `prefer`, `sft` and `reward`, read top to bottom."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from finegrain.errors import UsageError
from finegrain.generate.hf import generate_greedy
from finegrain.recipes.inspection.pairs import choose, snapshot_before, write_inspected_pairs
from finegrain.recipes.session import identity, open_session, prepare_scorer, record, tell_changes
from finegrain.recipes.training.artifact import reward_head_facts
from finegrain.recipes.training.columns import held_out_set, training_set
from finegrain.recipes.training.dry_run import estimate
from finegrain.recipes.training.frozen_features import on_features
from finegrain.recipes.training.job import Job, check_job, sources_of
from finegrain.recipes.training.keeping import criterion_of, selection_of
from finegrain.recipes.training.margins import settle_margins
from finegrain.recipes.training.meta_step import Rise
from finegrain.recipes.training.progress import progress_bar
from finegrain.recipes.training.publishing import Answers, check_saving, ended_in_words, write_results
from finegrain.recipes.training.rows import longest, plan_of, rows_of
from finegrain.recipes.training.shares import ShareWarning, start_of_parts
from finegrain.recipes.training.tracking import trackers
from finegrain.recipes.training.trainer import attach_head, build_modules, peak_rate, trainer_of, unshard
from finegrain.report.page import write_report
from finegrain.runs import RunDirectory
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import contract_of
from finegrain.train.distributed import barrier, rank, world
from finegrain.train.loop import Trainer, no_displacement
from finegrain.train.run import Recorder, train
from finegrain.train.sharding import empty_copy
from finegrain.train.trainer import embedding_rate

ANSWER_TOKENS = 64
"""Length of the answers given before and after training."""

Watch = Callable[[Trainer, dict[str, Any]], None]
"""Called with the trainer and the logged line of the step just taken."""


def align(job: Job, watch: Watch | None = None) -> dict[str, Any]:
    """Run the job; returns what is printed as the last line of stdout. `watch` sees the trainer after every step, and may not change it."""
    with ExitStack() as held:
        return _aligned(job, held, watch)


def _aligned(job: Job, held: ExitStack, watch: Watch | None) -> dict[str, Any]:
    contract = contract_of(job.objective, job.common.seed)
    check_job(job, contract)
    criterion = criterion_of(job, contract)
    directory = RunDirectory(job.out)
    if not job.common.dry_run:
        directory.check_apart(sources_of(job))
        directory.check(job.settings, resume=job.common.resume)
    session = open_session(job.model, job.common, job.training, job.lora, tokenizer=job.tokenizer, frozen=contract.frozen_backbone)
    if job.training.shard and world() == 1:
        raise UsageError("--shard splits a model over processes, and there is one; start them with torchrun --nproc_per_node N -m finegrain ...")
    job.artifact.check(session)
    check_saving(session, job)
    train_rows, eval_rows = rows_of(session, job, contract)
    if job.margin_scale is not None and "rejected" in contract.roles:
        settle_margins(session, job.margin_scale, train_rows)
    gradient_point = no_displacement if job.displacement is None else job.displacement(session)
    rate = peak_rate(session, job, contract)
    if job.common.dry_run:
        return estimate(session, contract, plan_of(session, TrainingSet(train_rows), contract.roles), rate)

    session.record.model = identity(session)
    directory.check_data(session.record.data or {})
    directory.check_data(session.record.eval_data or {}, "eval_data")
    directory.check_model(session.record.model)
    tell_changes(session, directory, resume=job.common.resume)
    if rank() == 0:
        held.enter_context(directory.locked())
        directory.check(job.settings, resume=job.common.resume)
    barrier()
    if rank() == 0:
        directory.write_record(record(session, job.command, job.settings, {"status": "running"}))
        for name, found in session.gates.items():
            directory.write_json(name, found)

    answered = job.training.samples if job.artifact.head is None else 0
    prompts = [example.prompt for example in (eval_rows or train_rows)[:answered]]
    session.start_clock()
    before = generate_greedy(session.policy.model, session.policy.tokenizer, prompts, max_new_tokens=ANSWER_TOKENS)
    scorer = prepare_scorer(session, max(longest(train_rows, eval_rows, contract), gradient_point.longest if isinstance(gradient_point, Rise) else 0))
    if contract.outputs:
        attach_head(session, contract, scorer, job.start_head, from_reward_model=job.from_reward_model)
        session.record = session.record.plus(reward_head_facts(contract))
    train_set = training_set(session, job, contract, scorer, train_rows)
    eval_set = held_out_set(session, contract, scorer, eval_rows)
    plan = plan_of(session, train_set, contract.roles)
    looked_at = choose(plan.visited(), train_set, eval_set, job.training.examined) if rank() == 0 else []
    scored = "logp" in contract.needs
    snapshot = snapshot_before(session, scorer, looked_at, contract.roles, train_set, eval_set, logp=scored) if looked_at else None

    whole = empty_copy(session.policy.model) if job.training.shard else None
    contract = build_modules(session, contract)
    trainer = replace(trainer_of(session, job, contract, scorer, train_set, rate, len(plan)), gradient_point=gradient_point)
    export = lambda folder: job.artifact.save(session, folder)
    with trackers(session, job.out, job.settings) as watchers, progress_bar(len(plan), show=rank() == 0) as tell:
        seen = [] if watch is None else [lambda line: watch(trainer, line)]
        selection = selection_of(job, criterion, trainer, eval_set)
        watching: list[Callable[[dict[str, Any]], None]] = [*watchers, tell, ShareWarning(session.say), *seen]
        recorder = Recorder(directory, Checkpoints(job.out), export, job.training.save_every, not job.training.shard, selection, watching)
        with ended_in_words(session, job, directory), on_features(session, trainer, plan) as (learner, steps):
            lines = train(learner, steps, recorder, resume=job.common.resume)
    seconds = session.seconds()
    steps_taken = int(lines[-1]["step"]) if lines else 0
    if selection is not None:
        selection.restore_best(trainer, steps_taken)
        session.record.kept = selection.kept(steps_taken)
        if stopped := selection.stopped(steps_taken, len(plan)):
            session.record.stopped = stopped
            session.say(stopped)
    if whole is not None:
        trainer = unshard(session, trainer, whole)

    evaluation = job.artifact.conclude(trainer, eval_set)
    after = generate_greedy(session.policy.model, session.policy.tokenizer, prompts, max_new_tokens=ANSWER_TOKENS)
    results = {
        "status": "finished",
        "train_seconds": round(seconds, 3),
        "steps": steps_taken,
        "pairs" if "chosen" in contract.roles else "rows": len(train_rows),
        "tokens": int(sum(line["num_tokens"] for line in lines)),
        "learning_rate": rate,
        "embedding_learning_rate": embedding_rate(job.optim, contract, rate),
        "evaluation": evaluation,
        **start_of_parts(lines),
        "last": lines[-1] if lines else {},
    }
    if rank() == 0:
        if snapshot is not None:
            write_inspected_pairs(snapshot, session, trainer.scorer, directory, job.data, job.common.eval, job.artifact.head)
        write_results(session, job, directory, results, Answers(prompts, before, after, eval_rows or train_rows))
        if selection is not None:
            selection.discard()
        session.say(f"report: {write_report(directory.path)}")
    return {"out": str(job.out), **{key: results[key] for key in ("status", "steps", "train_seconds")}, "evaluation": evaluation}
