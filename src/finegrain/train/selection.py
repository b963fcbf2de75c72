"""Evaluation while training: which step is kept, and when to stop. Its state stands in every checkpoint, so that a resumed run decides alike."""

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from finegrain.errors import CheckpointError, DataError
from finegrain.train.checkpoint import TABLE, load_weights, named_weights
from finegrain.train.distributed import barrier, from_first, rank
from finegrain.train.loop import Trainer
from finegrain.types import Json

BEST = "best.safetensors"
"""What trains, as it was at the best step so far: in the run directory while a run lasts, and in its checkpoints."""


@dataclass(frozen=True)
class Criterion:
    """What makes one step better than another."""

    name: str
    """Name of a held-out result."""
    higher: bool
    """Whether more of it is better."""

    def better(self, value: float, than: float | None) -> bool:
        """Strictly better; anything beats nothing, and what is not a number beats nothing."""
        return math.isfinite(value) and (than is None or (value > than if self.higher else value < than))


@dataclass
class Standing:
    """Which evaluation was best so far, and how many have followed it."""

    step: int = 0
    value: float | None = None
    since: int = 0


@dataclass
class Selection:
    """Measures the model every so many steps, remembers the best step, and says when to stop."""

    every: int
    measure: Callable[[], Mapping[str, Any]]
    """Held-out results by name, each a record with a mean, or a number; changes nothing of the training."""
    criterion: Criterion | None
    """None: the steps are measured, and nothing follows from it."""
    keep_best: bool
    patience: int
    """Evaluations in a row without a better one after which training stops; 0: it goes on."""
    folder: Path
    standing: Standing = field(default_factory=Standing)

    def due(self, step: int, *, last: bool) -> bool:
        """Whether a step is measured: every so many, and the last one."""
        return last or step % self.every == 0

    def __call__(self, trainer: Trainer, step: int) -> dict[str, float]:
        """The results of this step as plain numbers for its line; the best step so far is remembered."""
        started = time.perf_counter()
        numbers = plain_numbers(self.measure())
        if self.criterion is not None:
            self._judge(trainer, step, numbers)
        return numbers | {"eval_seconds": round(time.perf_counter() - started, 4)}

    def _judge(self, trainer: Trainer, step: int, numbers: Mapping[str, float]) -> None:
        assert self.criterion is not None
        name = self.criterion.name
        if name not in numbers and self.standing.value is None:
            raise DataError(f"the held-out rows give no {name} after step {step}; bring more of them, or name another result with --keep-by")
        value = from_first(numbers.get(name, math.nan), trainer.scorer.device)
        if not self.criterion.better(value, self.standing.value):
            self.standing.since += 1
            return
        self.standing = Standing(step, value, 0)
        if self.keep_best and rank() == 0:
            _write(trainer, self.folder / BEST)
        barrier()

    @property
    def exhausted(self) -> bool:
        """Whether so many evaluations brought nothing better that training stops."""
        return 0 < self.patience <= self.standing.since

    def stopped(self, step: int, of: int) -> str | None:
        """Why training stopped before its plan was done, in words; None where it did not."""
        if not self.exhausted or step == of or self.criterion is None:
            return None
        return (
            f"stopped after step {step} of {of}: {self.standing.since} evaluations in a row without a better {self.criterion.name} than the "
            f"{self.standing.value:.6g} of step {self.standing.step}"
        )

    def kept(self, last_step: int) -> Json:
        """Which step's model is kept, for run.json."""
        step = self.standing.step if self.keep_best else last_step
        found: Json = {"step": step, "of": last_step, "keep": "best" if self.keep_best else "last"}
        if self.criterion is None:
            return found
        best = {"step": self.standing.step, "value": self.standing.value}
        return found | {"by": self.criterion.name, "better": "higher" if self.criterion.higher else "lower", "best": best}

    def restore_best(self, trainer: Trainer, last_step: int) -> None:
        """Put the best step's weights and tables into the trainer, where they are kept and are not those of the last step."""
        if not self.keep_best or self.standing.step == last_step:
            return
        try:
            kept = load_file(self.folder / BEST)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read the best step's weights in {self.folder / BEST}: {error}; go on with --resume") from error
        load_weights(trainer, {name: tensor for name, tensor in kept.items() if not name.startswith(TABLE)})
        trainer.state.update({name: kept[TABLE + name].to(table) for name, table in trainer.state.items() if TABLE + name in kept})

    def discard(self) -> None:
        """Delete the best weights of the run directory: they are in the published model."""
        if rank() == 0:
            self._sweep()

    def _sweep(self) -> None:
        for file in (self.folder / BEST, (self.folder / BEST).with_suffix(".part")):
            file.unlink(missing_ok=True)

    def as_json(self) -> Json:
        """The state for a checkpoint."""
        return asdict(self.standing)

    def save(self, checkpoint: Path) -> None:
        """The best weights into the folder of a checkpoint that is being written."""
        if self.keep_best and self.standing.value is not None:
            _link(self.folder / BEST, checkpoint / BEST)

    def restore(self, checkpoint: Path | None, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, or from the beginning where there is none."""
        self.standing = Standing(**state) if state else Standing()
        if rank() == 0:
            self._sweep()
            if self.keep_best and self.standing.value is not None:
                assert checkpoint is not None
                try:
                    _link(checkpoint / BEST, self.folder / BEST)
                except OSError as error:
                    raise CheckpointError(f"cannot read {checkpoint / BEST}: {error}; delete {checkpoint} to go on without it") from error
        barrier()


def plain_numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """The means of records that have one, and numbers as they are."""
    means = {name: value.get("mean") if isinstance(value, Mapping) else value for name, value in results.items()}
    return {name: float(mean) for name, mean in means.items() if isinstance(mean, (int, float)) and math.isfinite(mean)}


def _write(trainer: Trainer, file: Path) -> None:
    """What trains and the objective's tables, whole under its name or as it was."""
    part = file.with_suffix(".part")
    try:
        whole = {**named_weights(trainer), **{TABLE + name: table for name, table in trainer.state.items()}}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in whole.items()}, part)
        part.replace(file)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write the best step's weights to {file}: {error}; checkpoints survive, go on with --resume") from error


def _link(source: Path, target: Path) -> None:
    """The same file under another name, a copy where the disk knows no links; what is later written under `source` is another file."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
