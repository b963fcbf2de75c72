"""What a job leaves in its run directory: how it ended, the model, its card, and answers before and after."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from torch import Tensor

from finegrain.data.store import ExampleStore
from finegrain.errors import CheckpointError, FinegrainError, Interrupted
from finegrain.models.load_errors import explain_load_errors
from finegrain.recipes.session import Session, stamp
from finegrain.recipes.training.card import write_card
from finegrain.recipes.training.job import Job
from finegrain.run_record import RunRecord
from finegrain.runs import RunDirectory
from finegrain.train.contract import Contract
from finegrain.train.distributed import rank
from finegrain.types import Json

LONGEST_TABLE = 1000
"""Numbers of a table that run.json has."""


class Answers(NamedTuple):
    """The same prompts answered before and after training."""

    prompts: Sequence[np.ndarray]
    """Tokens."""
    before: Sequence[str]
    after: Sequence[str] = ()


@contextmanager
def record_failure(session: Session, directory: RunDirectory, record: RunRecord) -> Iterator[None]:
    """run.json says how a run ended that did not finish; a full disk may prevent it."""
    try:
        yield
    except (FinegrainError, Interrupted) as error:
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        if rank() == 0:
            with suppress(OSError):
                directory.write_record(stamp(session, record.plus({"status": status, "reason": str(error)})))
        raise


def check_saving(session: Session, job: Job) -> None:
    """Raises ModelError, before the first step, for a model that could not be saved after the last one."""
    with (
        tempfile.TemporaryDirectory(prefix="finegrain-") as folder,
        explain_load_errors(f"{session.policy.source} could not be saved after training"),
    ):
        job.artifact.try_saving(session, Path(folder))


def write_results(
    session: Session, job: Job, contract: Contract, directory: RunDirectory, record: RunRecord, answers: Answers, rows: ExampleStore
) -> None:
    """The final checkpoint in the run directory itself, its card, samples and the completed run.json; a reward model scores some of the rows."""
    try:
        publish_files(lambda folder: job.artifact.save(session, contract, folder), job.out)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write the model to {job.out}: {error}; checkpoints in it survive, go on with --resume") from error
    usage = job.artifact.use(job.out, rows, job.training.samples)
    directory.write_lines("samples.jsonl", list_answers(session, answers) if usage is None else usage.samples)
    if usage is not None:
        record = record.plus({"card": usage.as_json()})
        for line in usage.words():
            session.say(line)
    write_card(job.out, record, session.policy.source, job.artifact.loader, usage)
    directory.write_record(stamp(session, record))


def list_answers(session: Session, answers: Answers) -> list[Json]:
    """Lines of samples.jsonl, told to the person too."""
    texts = [session.policy.tokenizer.decode(prompt) for prompt in answers.prompts]
    told = list(zip(texts, answers.before, answers.after, strict=True))
    for prompt, before, after in told:
        session.say(f"\n> {prompt[-300:].strip()}\n  before: {before.strip()}\n  after:  {after.strip()}")
    return [{"prompt": prompt, "before": before, "after": after} for prompt, before, after in told]


def publish_files(save: Callable[[Path], object], out: Path) -> None:
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


def describe_tables(state: Mapping[str, Tensor], texts: Mapping[str, Sequence[str]]) -> Json:
    """Every short table as numbers; a table with one place for each text of the one text column that is read is by text. {} without tables."""
    found: Json = {}
    for name, table in state.items():
        if table.numel() > LONGEST_TABLE:
            continue
        values = table.tolist()
        (own,) = texts.values() if len(texts) == 1 else ([],)
        found[name] = dict(zip(own, values, strict=True)) if own and table.shape == (len(own),) else values
    return {"tables": found} if found else {}
