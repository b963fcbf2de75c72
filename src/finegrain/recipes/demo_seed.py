"""One seed of the demo: its data, its scorer, and every row of the table."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from finegrain.data.load import load_examples
from finegrain.data.planted import Files, Planted, World, read_jsonl, write_planted
from finegrain.data.records import Shape
from finegrain.data.truncate import Tokenise
from finegrain.errors import CreditError
from finegrain.models.load import load_policy
from finegrain.models.probe import make_scorer
from finegrain.models.score import Arithmetic, score_rows
from finegrain.recipes.alignment import align
from finegrain.recipes.demo_baselines import baseline_aurocs
from finegrain.recipes.demo_path import SIDES, PathReader, Probes, best_within
from finegrain.recipes.demo_rows import BASELINE, HALVES, POOL, ROWS, Budget, Scorers, job
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


def run_seed(task: SeedTask) -> Json:
    """Results by row name."""
    started = time.perf_counter()
    folder = task.out / f"seed-{task.seed}"
    folder.mkdir(parents=True)
    with set_apart(folder):
        world = World(task.planted, task.seed)
        files = write_planted(folder, world)
        probes = _probes(world, files, task)
        start = probes.start()
        scorers = _scorers(task, files, folder)
        rows: Json = {}
        for row in ROWS:
            truth = read_jsonl(getattr(files, row.data))
            reader = PathReader(probes, frozenset(task.readings), truth, [start])
            before = time.perf_counter()
            refused, evaluation = None, {}
            try:
                out, examined = folder / row.folder, EXAMINED if task.seed == 0 and row.name in REPORTED else 0
                asked = job(row, files, base=task.base, scorers=scorers, out=out, budget=task.budget, seed=task.seed, examined=examined)
                evaluation = align(asked, reader)["evaluation"]
            except CreditError as error:  # a credit that keeps nothing is a result, and stands in the table as one
                refused = str(error)
            seconds = round(time.perf_counter() - before, 2)
            summary = _summary(reader) if refused is None else dict.fromkeys(_summary(reader))
            rows[row.name] = {**summary, "refused": refused, "seconds": seconds, "evaluation": evaluation}
        baselines = baseline_aurocs(*(read_jsonl(file) for file in (files.pairs, files.pool)))
    return {"seed": task.seed, "seconds": round(time.perf_counter() - started, 2), "rows": rows, "baseline_aurocs": baselines}


def reported(out: Path) -> list[Path]:
    """Run directories of the rows that stand side by side in the report."""
    return [out / "seed-0" / row.folder for row in ROWS if row.name in REPORTED]


def _scorers(task: SeedTask, files: Files, folder: Path) -> Scorers:
    """Plain dpo fits on the pool and on its halves."""
    outs = {row.data: folder / f"scorer-{row.data}" for row in (POOL, *HALVES)}
    none = Scorers("", "")
    for row in (POOL, *HALVES):
        align(job(row, files, base=task.base, scorers=none, out=outs[row.data], budget=task.budget, seed=task.seed))
    return Scorers(str(outs["pool"]), ",".join(str(outs[row.data]) for row in HALVES))


def _probes(world: World, files: Files, task: SeedTask) -> Probes:
    """The base model and what is asked of it."""
    policy = load_policy(str(task.base))
    pairs, held_out = (
        load_examples(str(file), policy.tokenizer, shape=Shape.PREFERENCE, settings=Tokenise()).examples for file in (files.pairs, files.held_out)
    )
    pairs = pairs[: task.samples]
    base, _ = make_scorer(policy.model, longest=128)
    how = Arithmetic(nullcontext, "float32", 4096)
    return Probes(world, policy.tokenizer, base.eval(), held_out, pairs, score_rows(base, pairs, SIDES, how), task.samples, how)


def _summary(reader: PathReader) -> Json:
    best = {f"{kl:g}": best_within(reader.points, kl) for kl in DISTANCES}
    found = {f"{name}_within_{kl}": getattr(point, name) for kl, point in best.items() for name in ("quality", "chosen", "rejected", "kl")}
    return {"path": [asdict(point) for point in reader.points], "credit_auroc": reader.credit, **found}


@contextmanager
def set_apart(folder: Path) -> Iterator[None]:
    """Work that keeps its messages in log.txt, its cache out of the user's, and one thread: tiny operations are slower on two."""
    cache, threads = os.environ.get("FINEGRAIN_CACHE"), torch.get_num_threads()
    os.environ["FINEGRAIN_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    try:
        with (folder / "log.txt").open("w") as log, redirect_stderr(log):
            yield
    finally:
        torch.set_num_threads(threads)
        if cache is None:
            del os.environ["FINEGRAIN_CACHE"]
        else:
            os.environ["FINEGRAIN_CACHE"] = cache
