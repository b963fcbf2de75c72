"""One cell: a row of the table trained on one seed with one rate and beta; its result is a file, so that a stopped benchmark goes on."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from finegrain.commands.bench import BenchCreditSettings
from finegrain.commands.settings import Common, Training
from finegrain.data.planted import Planted, read_jsonl
from finegrain.errors import CreditError, DataError, NonFiniteError
from finegrain.files import replace_file
from finegrain.models.lora import Lora
from finegrain.recipes.bench.data import BenchData, prepare_data
from finegrain.recipes.bench.rows import BenchRow, rows_of
from finegrain.recipes.demo.path import PathReader, best_within
from finegrain.recipes.demo.rows import OPTIM, Budget
from finegrain.recipes.demo.seed import DISTANCES, SeedTask, probes_of, set_apart
from finegrain.recipes.training.align import align
from finegrain.recipes.training.job import Job
from finegrain.train.loop import Trainer
from finegrain.types import Json


class Trial(NamedTuple):
    """What is tuned."""

    rate: float
    beta: float


@dataclass(frozen=True)
class Cell:
    """A row of the table on a seed."""

    row: str
    pairs: int
    seed: int
    trial: Trial
    whole: bool = True
    """Whether the path is read to its end; otherwise until it is further from the base than any distance that counts [choice]."""

    @property
    def name(self) -> str:
        """Of its file."""
        words = "".join(letter if letter.isalnum() else "-" for letter in self.row)
        return f"{words}-{self.pairs}-{self.seed}-{self.trial.rate:g}-{self.trial.beta:g}"


Measure = Callable[[Sequence[Cell]], list[Json]]
"""The results of cells, in their order: made now, or before."""


class _PathLeft(Exception):
    """The rest of a path is beyond the distances that count."""


@dataclass(frozen=True)
class UntilItLeaves:
    """A reader of the path that ends the run at the first reading beyond the largest distance."""

    reader: PathReader

    def __call__(self, trainer: Trainer, line: dict[str, Any]) -> None:
        """Read; raises where the path has left."""
        self.reader(trainer, line)
        if self.reader.points[-1].kl > max(DISTANCES):
            raise _PathLeft


@dataclass(frozen=True)
class CellRunner:
    """What a process needs to run any cell."""

    settings: BenchCreditSettings
    planted: Planted
    budget: Budget
    base: Path
    samples: int
    readings: tuple[int, ...]

    @property
    def cells(self) -> Path:
        """Folder of the results."""
        return self.settings.out / "cells"

    def kept(self, cell: Cell) -> Json | None:
        """The result of a cell that has finished."""
        file = self.cells / f"{cell.name}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def data(self, pairs: int, seed: int) -> BenchData:
        """The data of a seed."""
        folder = self.settings.out / "data" / f"{pairs}-pairs" / f"seed-{seed}"
        return BenchData(folder, seed, replace(self.planted, pairs=pairs), self.settings, self.base)

    def prepare(self, pairs: int, seed: int) -> Json:
        """The data, and how many labels people gave."""
        return prepare_data(self.data(pairs, seed))

    def run(self, cell: Cell) -> Json:
        """Train and read one cell, and keep its result."""
        started = time.perf_counter()
        data = self.data(cell.pairs, cell.seed)
        row = next(row for row in rows_of(self.settings) if row.name == cell.row)
        task = SeedTask(cell.seed, data.planted, self.budget, self.base, data.folder.parent, self.samples, self.readings)
        out = data.folder / cell.name
        shutil.rmtree(out, ignore_errors=True)  # of a benchmark that was stopped
        refused, evaluation = None, Json()
        with set_apart(data.folder, f"log-{cell.name}.txt"):
            _, probes, start = probes_of(task)
            file = data.folder / f"{row.data}.jsonl"
            truth = read_jsonl(file)
            if not truth:
                raise DataError(f"{cell.row}: nobody gave a correction to {cell.pairs} pairs of seed {cell.seed}; raise --scorer.share or --pairs")
            reader = PathReader(probes, frozenset(self.readings), truth, [start])
            try:
                evaluation = align(self._job(row, cell, file, len(truth), out), reader if cell.whole else UntilItLeaves(reader))["evaluation"]
            except (CreditError, NonFiniteError) as error:  # a credit that keeps nothing, or a loss that runs away, is a result
                refused = str(error)
            except _PathLeft:
                pass
        shutil.rmtree(out, ignore_errors=True)
        accuracy = evaluation.get("eval_accuracy", {})
        found: Json = {
            **asdict(cell),
            "refused": refused,
            "quality": {f"{kl:g}": None if refused else best_within(reader.points, kl).quality for kl in DISTANCES},
            "accuracy": accuracy.get("mean"),
            "auroc": reader.credit,
            "last_kl": reader.points[-1].kl,
            "path": [[point.step, round(point.kl, 3), round(point.quality, 3)] for point in reader.points],
            "seconds": round(time.perf_counter() - started, 2),
        }
        self.cells.mkdir(exist_ok=True)
        replace_file(self.cells / f"{cell.name}.json", json.dumps(found) + "\n")
        return found

    def _job(self, row: BenchRow, cell: Cell, file: Path, rows: int, out: Path) -> Job:
        return Job(
            command="prefer",
            model=str(self.base),
            data=str(file),
            out=out,
            objective=row.objective(beta=cell.trial.beta),
            credit=row.credit,
            common=Common(
                lr=cell.trial.rate,
                max_steps=self.budget.steps,
                seed=cell.seed,
                device="cpu",
                eval=None if row.data == "answers" else str(file.parent / "tested.jsonl"),
            ),
            training=Training(
                holdout=0.0,
                epochs=(self.budget.steps + 1) * self.budget.batch_size / rows,
                batch_size=self.budget.batch_size,
                micro_tokens=8192,
                samples=0,
                examined=0,
            ),
            lora=Lora(),
            optim=OPTIM,
            settings={},
        )
