"""Run a trainer over the steps of its source: log, checkpoint, resume, stop on Ctrl-C after the step at hand."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from finegrain.errors import FinegrainError, Interrupted, NonFiniteError
from finegrain.files import replace_file
from finegrain.runs import RunDirectory
from finegrain.train.batches import Plan, Step
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.contract import DIVERGED
from finegrain.train.diagnosis import Diagnosis
from finegrain.train.distributed import any_rank, rank
from finegrain.train.loop import NonFiniteStep, Trainer, run_step
from finegrain.train.selection import Selection
from finegrain.train.source import Planned, StepSource, Taken


@dataclass(frozen=True)
class Recorder:
    """Where the steps of a run are written down."""

    directory: RunDirectory
    checkpoints: Checkpoints
    export: Callable[[Path], None]
    """Adds the stock layout of the current model to a folder."""
    save_every: int = 0
    """Optimiser steps between checkpoints; 0 writes none but on Ctrl-C."""
    resumable: bool = True
    """False where a checkpoint cannot be written (sharded training)."""
    selection: Selection | None = None
    """Evaluation while training; None: there is none."""
    watchers: list[Callable[[dict[str, Any]], None]] = field(default_factory=list)
    """Called on the first rank with every logged line: progress, trackers."""
    diagnosis: Diagnosis | None = None
    """Gradients of single pairs, measured while training; None: they are not."""

    def save(self, trainer: Trainer, step: int, source: StepSource | None) -> None:
        """A checkpoint of this step, with what is known of the best one."""
        if self.selection is None:
            self.checkpoints.save(trainer, step, self.export, source=source)
            return
        self.checkpoints.save(trainer, step, self._with_best, self.selection.as_json(), source)

    def _with_best(self, folder: Path) -> None:
        assert self.selection is not None
        self.export(folder)
        self.selection.save(folder)


def train(trainer: Trainer, source: Plan | StepSource, recorder: Recorder, *, resume: bool) -> list[dict[str, Any]]:
    """Take all steps of a plan over the trainer's rows, or of a source that makes them; returns the logged lines, those of an earlier part too."""
    steps, kept = (Planned(source), None) if isinstance(source, Plan) else (source, source)
    done = recorder.checkpoints.restore(trainer, kept) if resume else 0
    selection = recorder.selection
    if selection is not None:
        selection.restore(*(recorder.checkpoints.selection() if resume else (None, {})))
    if rank() == 0:
        recorder.directory.cut_steps(done)
    with _interrupt_flag() as interrupted:
        for index in range(done, len(steps)):
            if selection is not None and selection.exhausted:
                break
            started = time.perf_counter()
            with _saving(trainer, index, kept, recorder, of=FinegrainError, done=done):
                taken = steps.at(trainer, index)
            last = index + 1 == len(steps)
            line: dict[str, Any] = {}
            if taken is not None:
                with _saving(trainer, index, kept, recorder, of=_NothingUpdatedError, done=done):
                    line = _take(taken, recorder, index, started)
                line |= steps.note(line)
            if selection is not None and selection.due(index + 1, last=last):
                with _saving(trainer, index + 1, kept, recorder, of=FinegrainError, done=done):
                    line |= selection(trainer, index + 1)
                last = last or selection.exhausted
            if line and rank() == 0:
                line = {"step": index + 1, **line}
                recorder.directory.append_metrics(line)
                for watch in recorder.watchers:
                    watch(line)
            stop = any_rank(interrupted(), trainer.scorer.device)
            if stop and not last and not recorder.resumable:
                raise Interrupted(f"stopped after step {index + 1} of {len(steps)}; a sharded run keeps no state to go on from")
            if recorder.resumable and (stop or (recorder.save_every and (index + 1) % recorder.save_every == 0 and not last)):
                recorder.save(trainer, index + 1, kept)
            if stop and not last:
                raise Interrupted(f"stopped after step {index + 1} of {len(steps)}; the state is saved, go on with the same command and --resume")
    return list(recorder.directory.metrics())


@contextmanager
def _saving(trainer: Trainer, step: int, source: StepSource | None, recorder: Recorder, *, of: type[FinegrainError], done: int) -> Iterator[None]:
    """Where an error of this kind ends a run whose source makes its data: saves the state after `step` updates, if there is one after the `done`
    ones that the run began with.
    """
    try:
        yield
    except of:
        if source is not None and recorder.resumable and step > done:
            recorder.save(trainer, step, source)
        raise


def _take(taken: Taken, recorder: Recorder, index: int, started: float) -> dict[str, Any]:
    """The logged line of a step, its rows made and all models updated."""
    trainer, step = taken.trainer, taken.step
    measured = None if recorder.diagnosis is None else recorder.diagnosis.measure(trainer, step)
    beside = {prefix: _guarded_step(other, step, recorder) for prefix, other in taken.beside.items()}
    line = _guarded_step(trainer, step, recorder, updated=tuple(beside))
    for prefix, own in beside.items():
        line |= {prefix + name: value for name, value in own.items() if name not in ("step", "epoch", "num_tokens")}
    if trainer.contract.unbounded and line["loss"] < DIVERGED:
        raise NonFiniteError(
            f"the loss of step {index + 1} is {line['loss']:.4g}, below {DIVERGED:g}: {trainer.contract.unbounded}; lower --lr or --epochs"
        )
    seconds = time.perf_counter() - started
    line |= {"step_seconds": round(seconds, 4), "tokens_per_second": round(line["num_tokens"] / seconds, 1), **taken.facts}
    if recorder.diagnosis is not None and measured is not None:
        line |= recorder.diagnosis.compare(trainer, measured)
    return line


class _NothingUpdatedError(NonFiniteError):
    """A loss or gradient is not finite, and all models are as they were before the step."""


def _guarded_step(trainer: Trainer, step: Step, recorder: Recorder, *, updated: tuple[str, ...] = ()) -> dict[str, Any]:
    """The step's line; `updated`: other models that the step has updated already."""
    index = step.index
    try:
        return dict(run_step(trainer, step))
    except NonFiniteStep as error:
        sources = [trainer.data.examples[row].row for row in error.rows]
        file = recorder.directory.path / "nonfinite.json"
        batch = [
            {"row": example.row, "prompt": example.prompt.tolist(), **{role: side.ids.tolist() for role, side in example.responses.items()}}
            for example in (trainer.data.examples[row] for row in error.rows)
        ]
        if rank() == 0:
            replace_file(file, json.dumps({"step": index + 1, "what": error.what, "rows": sources, "token_ids": batch}))
        kind = NonFiniteError if updated else _NothingUpdatedError
        told = f"{' and '.join(name.strip('/') for name in updated)} alone was updated" if updated else "nothing was updated"
        raise kind(
            f"the {error.what} of step {index + 1} is not finite; rows {sources[:20]} of the data; their tokens are in {file}; "
            f"{told} by this step: lower --lr, or look at these rows"
        ) from error


@contextmanager
def _interrupt_flag() -> Iterator[Callable[[], bool]]:
    """A flag that the first Ctrl-C raises; the second one stops at once."""
    asked: list[bool] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: nothing to catch here
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
