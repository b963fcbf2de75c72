"""`finegrain demo`: planted data, a tiny base model, and every row of a small table of credit, measured against the truth."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finegrain.commands.demo import DemoSettings
from finegrain.data.planted import Planted, World
from finegrain.errors import CheckpointError
from finegrain.files import replace_file
from finegrain.models.permissions import allow_readers
from finegrain.recipes.demo.base import make_base
from finegrain.recipes.demo.rows import BETA, ROWS, Budget
from finegrain.recipes.demo.seed import SeedTask, prepare_seed, reported, run_row, set_apart
from finegrain.recipes.demo.summary import baselines, baselines_in_words, cells, markdown, summarise, verdict
from finegrain.report.page import write_page
from finegrain.report.read import read_run
from finegrain.terminal import make_visible
from finegrain.types import Json


@dataclass(frozen=True)
class Scale:
    """How much is generated, trained and sampled."""

    planted: Planted
    base_answers: int
    base_steps: int
    budget: Budget
    samples: int
    readings: tuple[int, ...]


FULL = Scale(
    planted=Planted(),
    base_answers=9600,
    base_steps=300,
    budget=Budget(63, 32, 2.4e-3),
    samples=256,
    readings=(6, 14, 26, 42, 63),
)
"""63 steps of 32 rows see all 2000 pairs once. The learning rate is the best of 6e-4, 1.2e-3 and 2.4e-3 for the baseline, plain dpo on the
100 pairs, on two seeds that are not among the demo's (docs/guides/demo.md); every other row takes it as it is."""
QUICK = Scale(
    planted=Planted(pairs=16, pool=24, held_out_pairs=8, sentences=3, sentence_types=8, good=0.25, bad=0.25, annotated=1.0),
    base_answers=64,
    base_steps=8,
    budget=Budget(3, 8, 1e-3),
    samples=8,
    readings=(1, 3),
)


def run_demo(settings: DemoSettings) -> Json:
    """Data, base, seeds, table, files."""

    started = time.perf_counter()
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120, soft_wrap=True, highlight=False)
    out = _folder(settings.out)
    scale = QUICK if settings.quick else FULL
    console.print(
        f"demo: {settings.seeds} seeds of {scale.planted.pairs} pairs and a pool of {scale.planted.pool}; results in {escape(make_visible(out))}"
    )
    base = base_of(out, scale)
    console.print(f"base model trained on {scale.base_answers} answers drawn without preference ({time.perf_counter() - started:.0f} s)")
    seeds = _seeds(settings, scale, base, out, console)
    summary = summarise(seeds)
    seconds = round(time.perf_counter() - started, 1)
    about = _about(scale, settings, seconds)
    floor = baselines(seeds)
    replace_file(out / "demo.md", markdown(summary, about=about, beside=baselines_in_words(floor)))
    page = write_page([read_run(folder) for folder in reported(out)], out / "demo.html")
    said = verdict(summary)
    asked = {"settings": asdict(settings), "scale": asdict(scale)}
    record = {**asked, "wall_seconds": seconds, "summary": summary, "baseline_aurocs": floor, "verdict": said, "seeds": seeds}
    replace_file(out / "demo.json", json.dumps(record, indent=1, default=str) + "\n")
    header, *lines = cells(summary)
    table = Table(header[0], *header[2:], box=box.SIMPLE)
    for name, _, *numbers in lines:
        table.add_row(name, *numbers)
    console.print(table, soft_wrap=False)
    after = escape(make_visible(f"{_next(out)}\n\nwall time: {seconds:.0f} s\nreport: {page}"))
    console.print(f"{baselines_in_words(floor)}\n\n{about}\n\n{said}\n\n{after}")
    return {"out": str(out), "report": str(page), "table": str(out / "demo.md"), "status": "finished", "wall_seconds": seconds, "verdict": said}


def _folder(out: Path | None) -> Path:
    if out is None:
        made = Path(tempfile.mkdtemp(prefix="finegrain-demo-"))
        allow_readers(made)
        return made
    if (out / "demo.json").exists() or (out / "base").exists():
        raise CheckpointError(f"{out} already holds a demo; give another --out")
    if out.is_dir() and any(out.iterdir()):
        raise CheckpointError(f"{out} holds files that no demo wrote; give a folder of its own as --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot create {out}: {error}") from error
    return out


def base_of(out: Path, scale: Scale) -> Path:
    """The base model of a scale, trained in this folder."""

    with set_apart(out, "log.txt"):
        world = World(scale.planted, 0)
        return make_base(out, world, answers=scale.base_answers, steps=scale.base_steps, batch_size=scale.budget.batch_size)


def _seeds(settings: DemoSettings, scale: Scale, base: Path, out: Path, console: Console) -> list[Json]:
    """Results in the order of the seeds; rows are spread over the workers, since five seeds are no multiple of two."""

    tasks = [SeedTask(seed, scale.planted, scale.budget, base, out, scale.samples, scale.readings) for seed in range(settings.seeds)]
    workers = min(settings.workers or os.cpu_count() or 1, len(tasks) * len(ROWS))
    seeds, waiting = [], []
    with open_workers(workers) as submit:
        preparing = [submit(prepare_seed, task) for task in tasks]
        for task, prepared in zip(tasks, preparing, strict=True):
            seeds.append(prepared())
            waiting.append([submit(run_row, task, row.name) for row in ROWS])
        for seed, rows in zip(seeds, waiting, strict=True):
            seed["rows"] = {row.name: result() for row, result in zip(ROWS, rows, strict=True)}
            console.print(f"seed {seed['seed']}: {len(rows)} rows in {sum(row['seconds'] for row in seed['rows'].values()):.0f} s of one core")
    return seeds


@contextmanager
def open_workers(workers: int) -> Iterator[Callable[..., Callable[[], Any]]]:
    """submit(function, *arguments) gives a call that waits for the result; one worker is this process."""
    if workers == 1:
        yield lambda function, *arguments: partial(function, *arguments)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield lambda function, *arguments: pool.submit(function, *arguments).result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what waits would else be made before the error is told
            raise


def _about(scale: Scale, settings: DemoSettings, seconds: float) -> str:
    planted, budget = scale.planted, scale.budget
    return (
        f"Regime: {planted.pairs} pairs, a pool of {planted.pool} others, {planted.sentences} sentences per answer of {planted.sentence_types} types "
        f"({planted.good:.0%} good, {planted.bad:.0%} bad), labels of temperature {planted.temperature:g}. Every row takes {budget.steps} steps of "
        f"{budget.batch_size} pairs at learning rate {budget.lr:g}, beta {BETA:g}; {settings.seeds} seeds; {seconds:.0f} s in all.\n\n"
        "Numbers are means over seeds ± half of a 95 % interval (Student t; differences are paired by seed). Quality: true quality per answer, the "
        f"sum over sentences, of {scale.samples} answers sampled for held-out prompts; the best along the training path, read {len(scale.readings)} "
        "times, within 1 or 4 nats per answer of the base (KL). Credit AUROC: how well the token rewards tell good from bad sentences; "
        "own scorers and word lists score pairs that they were not made from. Chosen moved: "
        "change of the log-probability of the pairs' chosen answers at the best point within 1 nat, nats per answer. A row whose credit was refused "
        "before training says so. Confidence has two scorers, each fitted on half of the pool. A scorer's implicit reward has no natural zero, so "
        "asr and confidence compare it with its mean (credit.baseline:batch-mean)."
        + (" This was --quick: far too little to say anything about a method." if settings.quick else "")
    )


def _next(out: Path) -> str:
    truth = f"--model {out / 'base'} --data {out / 'seed-0' / 'truth.jsonl'} --out {out / 'own'}"
    commands = [
        "finegrain prefer --model YOUR_MODEL --data YOUR_PAIRS.jsonl --out run objective:dpo",
        f"finegrain prefer {truth} objective:token-distillation credit:token-reward",
        "finegrain methods",
    ]
    return "\n".join(["next:", *(f"  {command}" for command in commands)])
