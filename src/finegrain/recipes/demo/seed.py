"""One seed of the demo: its data and scorers, and a row of the table on them."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from finegrain.data.load import load_examples
from finegrain.data.planted import Files, Planted, World, find_planted_files, read_jsonl, write_planted
from finegrain.data.records import Shape
from finegrain.data.truncate import Tokenise
from finegrain.errors import CreditError
from finegrain.models.load import load_policy
from finegrain.models.probe import make_scorer
from finegrain.models.score import Precision, score_rows
from finegrain.recipes.demo.baselines import baseline_aurocs
from finegrain.recipes.demo.path import SIDES, PathReader, Point, Probes, best_within
from finegrain.recipes.demo.rows import BASELINE, HALVES, POOL, ROWS, Budget, DemoRow, Scorers, job
from finegrain.recipes.training.align import align
from finegrain.types import Json

REPORTED = (BASELINE.name, "dpo + asr, pool scorer", "token-distillation, pool scorer")
"""Rows of the first seed that stand side by side in the report."""

EXAMINED = 40
"""Pairs of each that it shows token by token."""

DISTANCES = (1.0, 4.0)
"""Nats per answer at which rows are compared."""


@dataclass(frozen=True)
class SeedTask:
    """What a worker needs to run one seed."""

    seed: int
    planted: Planted
    budget: Budget
    base: Path
    out: Path
    samples: int
    readings: tuple[int, ...]
    """Steps after which the policy is read."""


def prepare_seed(task: SeedTask) -> Json:
    """The seed's data and its scorers, on disk; what scores that read no model find."""
    folder = _folder(task)
    folder.mkdir(parents=True)
    with set_apart(folder, "log.txt"):
        files = write_planted(folder, World(task.planted, task.seed))
        for row, out in _scorer_folders(folder).items():
            align(job(row, files, base=task.base, scorers=Scorers("", ""), out=out, budget=task.budget, seed=task.seed))
    return {"seed": task.seed, "baseline_aurocs": baseline_aurocs(*(read_jsonl(file) for file in (files.pairs, files.pool)))}


def run_row(task: SeedTask, name: str) -> Json:
    """The row of this name on a prepared seed: its path, its credit, its seconds; why it was refused, if it was."""
    folder, row = _folder(task), next(row for row in ROWS if row.name == name)
    started = time.perf_counter()
    with set_apart(folder, f"log-{row.folder}.txt"):
        files, probes, start = probes_of(task)
        reader = PathReader(probes, frozenset(task.readings), read_jsonl(getattr(files, row.data)), [start])
        refused, evaluation = None, {}
        whole, *halves = map(str, _scorer_folders(folder).values())
        examined = EXAMINED if task.seed == 0 and row.name in REPORTED else 0
        try:
            scorers, out = Scorers(whole, ",".join(halves)), folder / row.folder
            asked = job(row, files, base=task.base, scorers=scorers, out=out, budget=task.budget, seed=task.seed, examined=examined)
            evaluation = align(asked, reader)["evaluation"]
        except CreditError as error:  # a credit that keeps nothing is a result, and stands in the table as one
            refused = str(error)
    summary = _summary(reader) if refused is None else dict.fromkeys(_summary(reader))
    return {**summary, "refused": refused, "seconds": round(time.perf_counter() - started, 2), "evaluation": evaluation}


def _folder(task: SeedTask) -> Path:
    return task.out / f"seed-{task.seed}"


def _scorer_folders(folder: Path) -> dict[DemoRow, Path]:
    """Plain dpo fits on the pool and on its halves."""
    return {row: folder / f"scorer-{row.data}" for row in (POOL, *HALVES)}


@cache
def probes_of(task: SeedTask) -> tuple[Files, Probes, Point]:
    """What all rows of a seed share in one process: files, the base model and what is asked of it, the base's own reading."""
    files = find_planted_files(_folder(task))
    probes = _probes(World(task.planted, task.seed), files, task)
    return files, probes, probes.start()


def reported(out: Path) -> list[Path]:
    """Run directories of the rows that stand side by side in the report."""
    return [out / "seed-0" / row.folder for row in ROWS if row.name in REPORTED]


def _probes(world: World, files: Files, task: SeedTask) -> Probes:
    """The base model and what is asked of it."""
    policy = load_policy(str(task.base))
    pairs, held_out = (
        load_examples(str(file), policy.tokenizer, shape=Shape.PREFERENCE, settings=Tokenise()).examples for file in (files.pairs, files.held_out)
    )
    pairs = pairs[: task.samples]
    base, _ = make_scorer(policy.model, longest=128)
    precision = Precision(nullcontext, "float32", 4096)
    return Probes(world, policy.tokenizer, base.eval(), held_out, pairs, score_rows(base, pairs, SIDES, precision), task.samples, precision)


def _summary(reader: PathReader) -> Json:
    best = {f"{kl:g}": best_within(reader.points, kl) for kl in DISTANCES}
    found = {f"{name}_within_{kl}": getattr(point, name) for kl, point in best.items() for name in ("quality", "chosen", "rejected", "kl")}
    return {"path": [asdict(point) for point in reader.points], "credit_auroc": reader.credit, **found}


@contextmanager
def set_apart(folder: Path, log: str) -> Iterator[None]:
    """Work that keeps its messages in a file, its cache out of the user's, and one thread: tiny operations are slower on two."""
    before, threads = os.environ.get("FINEGRAIN_CACHE"), torch.get_num_threads()
    os.environ["FINEGRAIN_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    try:
        with (folder / log).open("w") as stream, redirect_stderr(stream):
            yield
    finally:
        torch.set_num_threads(threads)
        if before is None:
            del os.environ["FINEGRAIN_CACHE"]
        else:
            os.environ["FINEGRAIN_CACHE"] = before
