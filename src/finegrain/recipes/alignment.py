"""Train a policy offline with any objective and any credit: the job behind `prefer` and `sft`, read top to bottom."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from finegrain.credit.summary import summarise
from finegrain.data.gate.settings import Gate
from finegrain.data.mismatch import with_mismatched
from finegrain.data.records import Shape
from finegrain.data.store import ExampleStore, token_lengths
from finegrain.errors import CheckpointError, FinegrainError, Interrupted, UsageError
from finegrain.generate.hf import greedy_answers
from finegrain.models.load import master_dtype
from finegrain.models.lora import Lora
from finegrain.models.reference import cost_of_live_reference, live_reference
from finegrain.models.reward_head import head_module, linear_head
from finegrain.models.scorer import Scorer, causal_lm, freeze_unread_vocabulary
from finegrain.recipes.answer_context import RunAnswers
from finegrain.recipes.card import write_card
from finegrain.recipes.credit_context import RunCredit
from finegrain.recipes.dry_run import estimate
from finegrain.recipes.examined import choose, examine_before, write_examined
from finegrain.recipes.frozen_features import on_features
from finegrain.recipes.product import AlignedPolicy, Product
from finegrain.recipes.progress import progress_bar
from finegrain.recipes.session import Session, hidden_size, load_data, open_session, prepare_scorer, record, split_holdout, trackers
from finegrain.recipes.settings import Common, Training
from finegrain.report.page import write_report
from finegrain.runs import RunDirectory
from finegrain.train.batches import Plan
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract, contract_of
from finegrain.train.distributed import barrier, rank, world
from finegrain.train.loop import Trainer
from finegrain.train.optim import Optim, adamw, scaled_default
from finegrain.train.run import Recorder, train
from finegrain.train.sharding import filled, hollow, shard
from finegrain.types import Credit, CreditColumns, Objective, Ragged

LORA_RATE = 10.0
"""LoRA's default rate is this many times that of full fine-tuning (the field's rule of thumb; TRL's documentation)."""

ANSWER_TOKENS = 64
"""Length of the answers given before and after training."""


Watch = Callable[[Trainer, dict[str, Any]], None]
"""Called with the trainer and the logged line of the step just taken."""


@dataclass(frozen=True)
class Job:
    """One alignment run, as asked for."""

    command: str
    model: Any
    data: str
    out: Path
    objective: Objective
    credit: Credit | None
    common: Common
    training: Training
    lora: Lora
    optim: Optim
    settings: Mapping[str, Any]
    """The same as JSON, for run.json."""
    tokenizer: Any = None
    product: Product = field(default_factory=AlignedPolicy)
    gate: Gate = Gate()


def align(job: Job, watch: Watch | None = None) -> dict[str, Any]:
    """Run the job; returns what is printed as the last line of stdout. `watch` sees the trainer after every step, and may not change it."""
    contract = contract_of(job.objective, job.common.seed)
    if "reward" in contract.needs and job.credit is None:
        raise UsageError(f"{type(job.objective).__name__} learns from token rewards; name a credit that writes them, e.g. credit:token-reward")
    _check_sharding(job, contract)
    directory = RunDirectory(job.out)
    if not job.common.dry_run:
        directory.check(job.settings, resume=job.common.resume)
    session = open_session(job.model, job.common, job.training, job.lora, tokenizer=job.tokenizer)
    if job.training.shard and world() == 1:
        raise UsageError("--shard splits a model over processes, and there is one; start them with torchrun --nproc_per_node N -m finegrain ...")
    job.product.check(session)
    train_rows, eval_rows = _rows(session, job, contract)
    peak_rate = _peak_rate(session, job, contract)
    if job.common.dry_run:
        return estimate(session, contract, _plan(session, TrainingSet(train_rows), contract.roles), peak_rate)
    directory.check_data(session.notes["data"])
    directory.create()
    barrier()
    if rank() == 0:
        directory.write_record(record(session, job.command, job.settings, {"status": "running"}))
        for name, found in session.gates.items():
            directory.write_json(name, found)
    prompts = [example.prompt for example in (eval_rows or train_rows)[: job.training.samples]]
    session.start_clock()
    before = greedy_answers(session.policy.model, session.policy.tokenizer, prompts, max_new_tokens=ANSWER_TOKENS)
    scorer = prepare_scorer(session, max(_longest(train_rows, contract.all_roles), _longest(eval_rows, contract.roles)))
    if contract.outputs:
        _attach_head(session, contract, scorer)
    train_set = _columns(session, job, contract, scorer, train_rows)
    reference = _reference(session, contract, scorer, eval_rows, contract.roles)
    eval_set = TrainingSet(eval_rows, reference, _prepared(session, contract, eval_rows, trains=False), _row_columns(contract, eval_rows))
    plan = _plan(session, train_set, contract.roles)
    looked_at = choose(plan.visited(), train_set, eval_set, job.training.examined) if rank() == 0 else []
    scored = "logp" in contract.needs
    examination = examine_before(session, scorer, looked_at, contract.roles, train_set, eval_set, logp=scored) if looked_at else None
    whole = hollow(session.policy.model) if job.training.shard else None
    trainer = _trainer(session, job, contract, scorer, train_set, peak_rate, len(plan))
    export = lambda folder: job.product.save(session, folder)
    with trackers(session, job.out, job.settings) as watchers, progress_bar(len(plan), show=rank() == 0) as tell:
        seen = [] if watch is None else [lambda line: watch(trainer, line)]
        recorder = Recorder(directory, Checkpoints(job.out), export, job.training.save_every, not job.training.shard, [*watchers, tell, *seen])
        with _told(session, job, directory), on_features(session, trainer, plan) as (learner, steps):
            lines = train(learner, steps, recorder, resume=job.common.resume)
    seconds = session.seconds()
    if whole is not None:
        trainer = _whole_again(session, trainer, whole)
    evaluation = job.product.evaluate(trainer, eval_set)
    after = greedy_answers(session.policy.model, session.policy.tokenizer, prompts, max_new_tokens=ANSWER_TOKENS)
    results = {
        "status": "finished",
        "train_seconds": round(seconds, 3),
        "steps": len(plan),
        "pairs" if "chosen" in contract.roles else "rows": len(train_rows),
        "tokens": int(sum(line["num_tokens"] for line in lines)),
        "learning_rate": peak_rate,
        "evaluation": evaluation,
        "last": lines[-1] if lines else {},
    }
    if rank() == 0:
        if examination is not None:
            head = getattr(job.product, "head", None)
            write_examined(examination, session, trainer.scorer, directory, job.data, job.common.eval, head)
        _write_results(session, job, directory, results, [prompts, before, after])
        session.say(f"report: {write_report(directory.path)}")
    return {"out": str(job.out), **{key: results[key] for key in ("status", "steps", "train_seconds")}, "evaluation": evaluation}


def _attach_head(session: Session, contract: Contract, scorer: Scorer) -> None:
    """A fresh head of the objective's outputs; the vocabulary's head is frozen where nothing reads it."""
    dtype = master_dtype(session.how.name)
    make = getattr(contract.objective, "make_head", None)
    if make is not None:
        torch.manual_seed(session.common.seed)  # a head's own module may draw noise in training; checkpoints keep the generator's state
    scorer.head = head_module(make, hidden_size(session), contract.outputs, seed=session.common.seed, dtype=dtype).to(scorer.device)
    lm = causal_lm(session.policy.model)
    if getattr(contract.objective, "frozen_backbone", False):
        session.policy.model.requires_grad_(False)
    if contract.action_value is not None and contract.action_value.fresh:
        words = lm.get_output_embeddings().weight.shape[0]
        scorer.q_head = linear_head(hidden_size(session), words, seed=session.common.seed + 1, dtype=dtype).to(scorer.device)
    if "logp" not in contract.needs:
        freeze_unread_vocabulary(lm)


def _check_sharding(job: Job, contract: Contract) -> None:
    """What sharded training does not promise."""
    if not job.training.shard:
        return
    if job.common.resume or job.training.save_every:
        raise UsageError("--shard keeps no checkpoints to resume from; drop --resume and --save-every, or --shard")
    if contract.outputs:
        raise UsageError(f"{type(job.objective).__name__} trains a head beside the model, which --shard does not split; drop --shard")
    if contract.gradient is not None:
        raise UsageError(f"{type(job.objective).__name__} makes its own gradients, which need whole parameters; drop --shard")


def _whole_again(session: Session, trainer: Trainer, shell: Any) -> Trainer:
    """The trainer and the session's policy with whole parameters after sharded training: for evaluation, answers and export."""
    session.scorer = filled(shell, trainer.scorer)
    session.policy = replace(session.policy, model=shell)
    return replace(trainer, scorer=session.scorer)


@contextmanager
def _told(session: Session, job: Job, directory: RunDirectory) -> Iterator[None]:
    """run.json says how a run ended that did not finish; a full disk may prevent it."""
    try:
        yield
    except (FinegrainError, Interrupted) as error:
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        if rank() == 0:
            with suppress(OSError):
                directory.write_record(record(session, job.command, job.settings, {"status": status, "reason": str(error)}))
        raise


def _rows(session: Session, job: Job, contract: Contract) -> tuple[ExampleStore, ExampleStore]:
    """(training, evaluation) examples in the shape the objective reads, with the sides it needs."""
    named = None if contract.shape is None else Shape(contract.shape)
    shape = named or (Shape.PREFERENCE if "chosen" in contract.all_roles else Shape.UNPAIRED if "label" in contract.needs else Shape.DEMONSTRATION)
    loaded = load_data(session, job.data, shape, limit=job.common.limit, gate=job.gate)
    session.gates["gate.json"] = loaded.gate
    session.notes["data"] = loaded.report
    if job.common.eval is not None:
        held = load_data(session, job.common.eval, shape, limit=None, gate=job.gate)
        session.gates["gate-eval.json"] = held.gate
        session.notes["eval_data"] = held.report
        both = loaded.examples, held.examples
    else:
        both = split_holdout(loaded.examples, job.training.holdout, job.common.seed)
    session.say(f"data: {len(both[0])} rows to train, {len(both[1])} held out")
    return (with_mismatched(both[0]), both[1]) if "mismatched" in contract.all_roles else both


def _columns(session: Session, job: Job, contract: Contract, scorer: Scorer, examples: ExampleStore) -> TrainingSet:
    """The training set with its reference values and its credit."""
    roles = contract.all_roles
    plan = _plan(session, TrainingSet(examples), contract.roles)
    needs_all = job.credit is not None
    visited = range(len(examples)) if needs_all else plan.visited()
    rows = examples.take(np.asarray(visited))
    values = _reference(session, contract, scorer, rows, roles, always=needs_all)
    reference = {role: _scattered(values[role], visited, len(examples)) for role in values}
    if job.credit is None:
        make = getattr(job.product, "columns", None)
        numbers = {**_row_columns(contract, examples), **({} if make is None else make(session, examples))}
        return TrainingSet(examples, reference, _prepared(session, contract, examples, trains=True), numbers)
    started = time.perf_counter()
    context = RunCredit(session, examples, contract.roles, reference)
    columns: Mapping[str, CreditColumns] = job.credit.prepare(context)
    session.notes["credit"] = summarise(columns, {role: context.masks(role) for role in contract.roles}, context.signs)
    session.notes["credit_seconds"] = round(time.perf_counter() - started, 3)
    if "reference" not in contract.needs:
        reference = {}
    return TrainingSet(examples, {role: reference[role] for role in roles if role in reference}, columns)


def _prepared(session: Session, contract: Contract, examples: ExampleStore, *, trains: bool) -> dict[str, CreditColumns]:
    """Token columns that the objective itself makes before training: segments, steps, changed tokens."""
    make = getattr(contract.objective, "prepare", None)
    if make is None or not len(examples):
        return {}
    found: dict[str, CreditColumns] = make(RunAnswers(session, examples, contract.roles, trains))
    return found


def _row_columns(contract: Contract, examples: ExampleStore) -> dict[str, np.ndarray]:
    """Numbers of the rows that the objective makes of their own before training: classes of ratings and their weights."""
    make = getattr(contract.objective, "row_columns", None)
    if make is None or not len(examples):
        return {}
    columns = [example.columns for example in examples]
    found: dict[str, np.ndarray] = make({name: np.array([own[name] for own in columns]) for name in examples.columns})
    return found


def _reference(
    session: Session, contract: Contract, scorer: Scorer, rows: ExampleStore, roles: Sequence[str], *, always: bool = False
) -> dict[str, Ragged]:
    """Reference values of the rows where the objective or its credit needs them."""
    if not always and not contract.needs & {"reference", "reward"}:
        return {}
    return session.cache.values(session.policy, scorer, rows, roles, session.how, session.work)


def _scattered(values: Ragged, places: Sequence[int] | Any, count: int) -> Ragged:
    """Values of the visited rows at their places; rows no step reads stay empty."""
    whole: Ragged = [values[0][:0]] * count if values else []
    for place, value in zip(places, values, strict=True):
        whole[place] = value
    return whole


def _longest(examples: ExampleStore, roles: Sequence[str]) -> int:
    """Tokens of the longest prompt with one answer."""
    prompts, answers = token_lengths(examples, roles)
    return int(np.max(prompts + np.max(answers, axis=0), initial=0))


def _plan(session: Session, data: TrainingSet, roles: Sequence[str]) -> Plan:
    training = session.training
    return Plan(
        tokens=data.packed_tokens(roles),
        batch_size=training.batch_size,
        epochs=training.epochs,
        seed=session.common.seed,
        micro_tokens=training.micro_tokens,
        world=world(),
        max_steps=session.common.max_steps,
    )


def _trainer(session: Session, job: Job, contract: Contract, scorer: Scorer, data: TrainingSet, peak_rate: float, steps: int) -> Trainer:
    for module in contract.modules.values():
        module.to(scorer.device, master_dtype(session.how.name))
    frozen = None
    if "kl" in contract.needs:
        frozen = live_reference(scorer)
        session.say(cost_of_live_reference(scorer))
        session.work.notes.append(cost_of_live_reference(scorer))
    if job.training.shard:
        shard(scorer)
    parameters = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    extra = [parameter for module in contract.modules.values() for parameter in module.parameters()]
    return Trainer(
        scorer=scorer,
        contract=contract,
        data=data,
        optimizer=adamw(parameters, extra, job.optim, peak_rate),
        optim=job.optim,
        how=session.how,
        metrics=job.product.metrics(job.objective),
        peak_rate=peak_rate,
        steps=steps,
        frozen=frozen,
        state={name: table.to(scorer.device) for name, table in contract.state.items()},
    )


def _peak_rate(session: Session, job: Job, contract: Contract) -> float:
    if job.common.lr is not None:
        return job.common.lr
    adapted = causal_lm(session.policy.model) is not session.policy.model
    return scaled_default(contract.learning_rate, hidden_size(session)) * (LORA_RATE if adapted else 1.0)


def _publish(save: Callable[[Path], object], out: Path) -> None:
    """The model in the run directory: written beside and moved, file by file."""
    part = out / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        save(part)
        for file in sorted(part.iterdir()):
            if file.is_dir():
                shutil.rmtree(out / file.name, ignore_errors=True)
            file.replace(out / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_results(session: Session, job: Job, directory: RunDirectory, results: Mapping[str, Any], answers: Sequence[Sequence[Any]]) -> None:
    """The final checkpoint in the run directory itself, its card, samples and the completed run.json."""
    prompts, before, after = answers
    texts = [session.policy.tokenizer.decode(prompt) for prompt in prompts]
    directory.write_lines("samples.jsonl", [{"prompt": p, "before": b, "after": a} for p, b, a in zip(texts, before, after, strict=True)])
    for text, old, new in zip(texts, before, after, strict=True):
        session.say(f"\n> {text[-300:].strip()}\n  before: {old.strip()}\n  after:  {new.strip()}")
    try:
        _publish(lambda folder: job.product.save(session, folder), job.out)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write the model to {job.out}: {error}; checkpoints in it survive, go on with --resume") from error
    write_card(job.out, job.command, job.settings, results, session.policy.source, job.product.loader)
    directory.write_record(record(session, job.command, job.settings, results))
