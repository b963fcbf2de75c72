"""`finegrain online`: a policy samples answers, rewards judge them, and it learns from where they are good or bad; read top to bottom.

Settings -> open_run -> OnlineOpened (nothing is written yet) -> prepare -> OnlinePrepared -> fit -> publish -> what the command prints.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from finegrain.commands.online import OnlineSettings
from finegrain.data.sources import Data, format_sources
from finegrain.errors import CheckpointError, FinegrainError
from finegrain.generate.hf import generate_greedy
from finegrain.generate.sample import open_sampler
from finegrain.generate.sampling import Sampler, Sampling
from finegrain.models.load import save_policy
from finegrain.models.scorer import Scorer
from finegrain.online.groups import GreedyBaseline
from finegrain.online.policy_loss import SeparateCritic
from finegrain.online.references import ModelSoup
from finegrain.recipes.entry import model_name
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.rollouts.buffer import BufferMaker
from finegrain.recipes.rollouts.critics import make_value_head, open_critic
from finegrain.recipes.rollouts.evaluation import HeldOut
from finegrain.recipes.rollouts.filters import rank_filters
from finegrain.recipes.rollouts.opening import OnlineOpened, open_run
from finegrain.recipes.rollouts.prompts import Prompt
from finegrain.recipes.rollouts.references import open_reference, open_start, open_watched
from finegrain.recipes.rollouts.rewards import different_names
from finegrain.recipes.rollouts.source import OnlineSource
from finegrain.recipes.session import Session, hidden_size, identify, identify_products, prepare_scorer, stamp, tell_changes
from finegrain.recipes.training.card import write_card
from finegrain.recipes.training.publishing import Answers, list_answers, publish_files, record_failure
from finegrain.recipes.training.watchers import open_watchers
from finegrain.report.online_findings import describe_alarms
from finegrain.report.page import write_report
from finegrain.report.read import read_run
from finegrain.run_record import RunRecord
from finegrain.scoring.records import TrainerState
from finegrain.terminal import write_line
from finegrain.train.batches import Plan
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.collate import TrainingSet
from finegrain.train.distributed import barrier, rank
from finegrain.train.loop import Trainer
from finegrain.train.metrics import metrics_for
from finegrain.train.run import Recorder, train
from finegrain.train.selection import Criterion, Selection
from finegrain.train.trainer import make_trainer
from finegrain.types import Json

SHOWN = 3
"""Answers."""


def train_online(
    model: Any, data: Data, out: str | Path, *, reward: str | Sequence[str], algorithm: Any, tokenizer: Any = None, **settings: Any
) -> Json:
    """Train a policy on its own sampled answers; returns what the command prints as its last line.

    `model` is a path, a Hub name, or a model object with its `tokenizer`; `reward` one or several of what `--reward` takes; further
    settings by the names of `commands.online.OnlineSettings`.
    """
    rewards = (reward,) if isinstance(reward, str) else tuple(reward)
    made = OnlineSettings(model=model_name(model), data=format_sources(data), out=Path(out), reward=rewards, algorithm=algorithm, **settings)
    return _run(made, model, tokenizer)


def run_online(settings: OnlineSettings) -> Json:
    """The command: the settings as they were parsed."""
    quiet_transformers()
    return _run(settings, settings.model, None)


@dataclass(frozen=True)
class OnlinePrepared:
    """A run before its first buffer."""

    opened: OnlineOpened
    trainer: Trainer
    source: OnlineSource
    held_out: HeldOut
    answers: Answers
    """To some prompts, as the start model gives them."""
    before: Json
    """Held-out results of the start model."""
    record: RunRecord


def _run(asked: OnlineSettings, model: Any, tokenizer: Any) -> Json:
    opened = open_run(asked, model, tokenizer)
    if asked.filters:
        return rank_filters(asked, prepare(opened, None).source)
    if asked.common.dry_run:
        return describe_first_buffer(prepare(opened, None).source)
    with ExitStack() as held:
        prepared = prepare(opened, held)
        return publish(prepared, fit(prepared))


def prepare(opened: OnlineOpened, held: ExitStack | None) -> OnlinePrepared:
    """Take the run directory, make the scorer, the critic, the references and the sampler, and answer the held-out prompts."""
    asked, session = opened.asked, opened.session
    record = opened.record if held is None else _begin(opened, held)
    session.start_clock()
    shown = [prompt.example.prompt for prompt in (opened.held_out or opened.prompts)[: asked.training.samples]]
    room = asked.sampling.max_new_tokens
    before = generate_greedy(session.policy.model, session.policy.tokenizer, shown, max_new_tokens=room) if held is not None else []
    scorer = prepare_scorer(session, session.max_length, gradient_checkpointing=asked.training.gradient_checkpointing)
    if opened.contract.values:
        scorer.value_head = make_value_head(session, hidden_size(session), opened.contract.values)
    plan = Plan(_ones(opened.prompts), asked.training.prompts, asked.training.epochs, asked.common.seed, session.precision.micro_tokens)
    source = _source(opened, scorer, plan)
    trainer = make_trainer(
        scorer, opened.contract, TrainingSet([]), session.precision, metrics_for(opened.contract), asked.optim, rate=opened.rate, steps=len(source)
    )
    once = replace(asked.sampling, answers=1, temperature=asked.training.eval_temperature)
    held_out = HeldOut(opened.held_out, _sampler(session, once), once, source.maker)
    return OnlinePrepared(opened, trainer, source, held_out, Answers(shown, before), {} if held is None else held_out(), record)


def _source(opened: OnlineOpened, scorer: Scorer, plan: Plan) -> OnlineSource:
    asked, session, algorithm = opened.asked, opened.session, opened.asked.algorithm
    names = different_names([Path(path).name for path in asked.watch], taken=("leash", "answer", "start"))
    watched = {name: open_watched(session, path, temperature=asked.sampling.temperature) for name, path in zip(names, asked.watch, strict=True)}
    if isinstance(asked.reference, ModelSoup) and opened.stages.reads_reference:
        watched["start"] = open_start(session, temperature=asked.sampling.temperature)
    leash = open_reference(session, asked.reference, temperature=asked.sampling.temperature) if opened.stages.reads_reference else None
    values = opened.stages.count_values(len(opened.rewards.names))
    apart = opened.stages.advantage.reads_values and isinstance(algorithm.critic, SeparateCritic)
    critic = open_critic(session, asked, algorithm.critic, values=values, steps=_steps(asked, plan)) if apart else None
    sampler = _sampler(session, asked.sampling)
    session.say(f"sampling: {sampler.describe()}")
    session.usage.notes.append(f"sampling: {sampler.describe()}")
    maker = BufferMaker(
        session=session,
        prompts=opened.prompts,
        sampler=sampler,
        sampling=asked.sampling,
        stages=opened.stages,
        rewards=opened.rewards,
        gold=opened.gold,
        baselines=opened.baselines,
        reference=leash,
        watched=watched,
        greedy=_greedy(session, asked.sampling) if isinstance(opened.stages.advantage, GreedyBaseline) else None,
        critic=None if critic is None else critic.scorer,
        measured=algorithm.updates > 1,
        state=opened.stages.start(),
        samples=asked.training.samples,
        progress=lambda step: _progress(asked, plan, step, algorithm.updates),
    )
    return OnlineSource(
        maker=maker,
        plan=plan,
        epochs=algorithm.epochs,
        minibatches=algorithm.minibatches,
        micro_tokens=session.precision.micro_tokens,
        seed=asked.common.seed,
        stop_at=asked.kl_stop,
        critics={} if critic is None else {"value/": critic},
        write=opened.directory.append_rollouts if rank() == 0 else lambda lines: None,
        most_steps=asked.common.max_steps,
    )


def _progress(asked: OnlineSettings, plan: Plan, step: int, updates: int) -> TrainerState:
    """What reward functions are told of an update, counted from 1."""
    passed = (step - 1) // updates / plan.steps_per_epoch
    return TrainerState(global_step=step - 1, max_steps=_steps(asked, plan), epoch=passed, num_train_epochs=math.ceil(asked.training.epochs))


def _steps(asked: OnlineSettings, plan: Plan) -> int:
    """Updates of the run."""
    whole = len(plan) * int(asked.algorithm.updates)
    return whole if asked.common.max_steps is None else min(whole, asked.common.max_steps)


def _greedy(session: Session, sampling: Sampling) -> Sampler:
    return _sampler(session, replace(sampling, answers=1, temperature=0.0))


def _sampler(session: Session, sampling: Sampling) -> Sampler:
    policy = session.policy
    return open_sampler(policy.model, policy.tokenizer, sampling, seed=session.seed, autocast=session.precision.autocast)


def _begin(opened: OnlineOpened, held: ExitStack) -> RunRecord:
    """Lock the run directory, once it is known to be free or this run's own, and write down that the run has begun."""
    asked, session, directory = opened.asked, opened.session, opened.directory
    record = opened.record.plus({"model": identify(session), "engine": identify_products(session), "status": "running"})
    directory.check_data(record.data or {})
    directory.check_data(record.eval_data or {}, "eval_data")
    directory.check_model(record.model or {})
    mended = directory.check_rewards(record.rewards or {})
    directory.check_references(record.references or {})
    for line in mended:
        session.say(line)
    record.changed = [*tell_changes(session, record, directory, resume=asked.common.resume), *mended] or None
    if rank() == 0:
        held.enter_context(directory.locked())
        directory.check(opened.settings, resume=asked.common.resume)
    barrier()
    if rank() == 0:
        directory.write_record(stamp(session, record))
    return record


@dataclass(frozen=True)
class OnlineFitted:
    """A run after its last update."""

    lines: list[dict[str, Any]]
    seconds: float
    selection: Selection | None
    evaluation: Json
    """Held-out results of the model that is kept."""


def fit(prepared: OnlinePrepared) -> OnlineFitted:
    """Take all updates, and put the parameters that are kept into the policy."""
    opened, trainer, source = prepared.opened, prepared.trainer, prepared.source
    asked, session, directory = opened.asked, opened.session, opened.directory
    selection = None
    if asked.training.eval_every and opened.held_out:
        every, best = asked.training.eval_every * source.updates, asked.training.keep == "best"
        selection = Selection(every, lambda: _with_bounds(prepared.held_out()), Criterion("eval_reward", True), best, 0, directory.path)
    with open_watchers(OnlineTracked(asked.out, opened.settings, asked.common), asked.training.track, len(source), session.say) as watchers:
        export = lambda folder: save_policy(session.policy, folder)
        recorder = Recorder(directory, Checkpoints(asked.out), export, asked.training.save_every, selection=selection, watchers=[*watchers])
        with record_failure(session, directory, prepared.record):
            lines = train(trainer, source, recorder, resume=asked.common.resume)
        seconds = session.seconds()
        with record_failure(session, directory, prepared.record):
            evaluation = _evaluate(prepared, recorder, selection, lines)
    return OnlineFitted(lines, seconds, selection, evaluation)


def _evaluate(prepared: OnlinePrepared, recorder: Recorder, selection: Selection | None, lines: Sequence[Mapping[str, Any]]) -> Json:
    """The held-out prompts answered by the model that is kept; where a reward fails on them, the state after the last update is saved first."""
    trainer, source = prepared.trainer, prepared.source
    best = selection is not None and selection.keep_best
    if selection is not None:
        selection.restore_best(trainer, int(lines[-1]["step"]) if lines else 0)
    try:
        return prepared.held_out()
    except FinegrainError:
        if not best:  # the weights are no longer those of the last update otherwise
            recorder.save(trainer, len(source), source)
        raise


def _with_bounds(results: Mapping[str, Any]) -> dict[str, Any]:
    """Held-out results, with the bounds of their intervals as numbers beside them."""
    bounds = {f"{name}_{end}": found[end] for name, found in results.items() for end in ("low", "high") if found.get(end) is not None}
    return {**results, **bounds}


@dataclass(frozen=True)
class OnlineTracked:
    """What a tracker is told of a run."""

    out: Path
    settings: Json
    common: Any


def publish(prepared: OnlinePrepared, fitted: OnlineFitted) -> Json:
    """Answer the held-out prompts once more, write the model with its card, record and report; returns what is printed."""
    opened, session, directory, lines = prepared.opened, prepared.opened.session, prepared.opened.directory, fitted.lines
    out, policy = opened.asked.out, session.policy
    room = opened.asked.sampling.max_new_tokens
    after = generate_greedy(policy.model, policy.tokenizer, prepared.answers.prompts, max_new_tokens=room)
    last = int(lines[-1]["step"]) if lines else 0
    results: Json = {
        "status": "finished",
        "train_seconds": round(fitted.seconds, 3),
        "steps": last,
        "rows": len(opened.prompts),
        "answers": _answers_sampled(prepared, lines),
        "tokens": int(sum(line.get("num_tokens", 0) for line in lines)),
        "learning_rate": opened.rate,
        "updates_skipped": prepared.source.skipped,
        "evaluation_before": prepared.before,
        "evaluation": fitted.evaluation,
        "last": lines[-1] if lines else {},
    }
    if fitted.selection is not None:
        results["kept"] = fitted.selection.kept(last)
    if rank() == 0:
        record = prepared.record.plus(results)
        try:
            publish_files(lambda folder: save_policy(policy, folder), out)
        except OSError as error:
            raise CheckpointError(f"cannot write the model to {out}: {error}; checkpoints in it survive, go on with --resume") from error
        directory.write_lines("samples.jsonl", list_answers(session, prepared.answers._replace(after=after)))
        write_card(out, record, policy.source, "AutoModelForCausalLM")
        directory.write_record(stamp(session, record))
        if fitted.selection is not None:
            fitted.selection.discard()
        for line in describe_alarms(read_run(directory.path)):
            session.say(line)
        session.say(f"report: {write_report(directory.path)}")
    return {"out": str(out), **{key: results[key] for key in ("status", "steps", "answers", "train_seconds", "evaluation_before", "evaluation")}}


def _answers_sampled(prepared: OnlinePrepared, lines: Sequence[Mapping[str, Any]]) -> int:
    plan, each = prepared.source.plan, prepared.opened.asked.sampling.answers
    return each * sum(len(plan.rows(int(line["buffer"]))) for line in lines if "buffer" in line)


def _ones(prompts: Sequence[Prompt]) -> Any:
    return torch.ones(len(prompts), dtype=torch.int64).numpy()


def describe_first_buffer(source: OnlineSource) -> Json:
    """Samples and scores the first buffer; nothing trains, nothing is written."""
    buffer = source.maker.make(0, [int(place) for place in source.plan.rows(0)], 1)
    for line in buffer.lines[:SHOWN]:
        write_line(f"\n> {line['prompt'][-300:].strip()}\n  {line['text'].strip()}\n  rewards {line['rewards']}, ended by {line['ended']}")
    seconds = sum(value for name, value in buffer.facts.items() if name.startswith("seconds/"))
    shown = {name: value for name, value in buffer.facts.items() if isinstance(value, (int, float)) and math.isfinite(value)}
    return {
        "status": "dry run",
        "buffers": len(source.plan),
        "updates": len(source),
        "answers": len(buffer.answers),
        "first_buffer": shown,
        "estimated_seconds_without_updates": round(seconds * len(source.plan), 1),
    }
