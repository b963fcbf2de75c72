"""`finegrain demo`: planted data, a tiny base model, and every row of a small table of credit, measured against the truth."""

import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from finegrain.data.planted import Planted, World
from finegrain.errors import CheckpointError, UsageError
from finegrain.recipes.demo_rows import Budget
from finegrain.types import Json


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Align a tiny model on generated answers whose every sentence has a known quality, with and without token credit."""

    out: Path | None = None
    """Folder for data, runs, demo.json and demo.md; by default a new temporary one."""
    seeds: int = 4
    """Independent repetitions: other qualities, pairs and orders."""
    workers: int = 0
    """Seeds run at the same time, one thread each; 0 takes as many as there are cores."""
    quick: bool = False
    """Tiny numbers, for trying out: says nothing about the methods."""

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.workers < 0:
            raise UsageError(f"--seeds must be at least 1 and --workers at least 0, got {self.seeds} and {self.workers}")


@dataclass(frozen=True)
class Scale:
    """How much is generated, trained and sampled."""

    planted: Planted
    base_answers: int
    base_steps: int
    budget: Budget
    scorer_budget: Budget
    samples: int
    readings: tuple[int, ...]


FULL = Scale(
    planted=Planted(pairs=200, pool=3000),
    base_answers=3000,
    base_steps=90,
    budget=Budget(100, 32, 3e-4),
    scorer_budget=Budget(100, 32, 5e-4),
    samples=256,
    readings=(10, 20, 30, 40, 55, 75, 100),
)
QUICK = Scale(
    planted=Planted(pairs=16, pool=24, held_out_pairs=8, sentences=2, sentence_types=8),
    base_answers=64,
    base_steps=8,
    budget=Budget(3, 8, 1e-3),
    scorer_budget=Budget(3, 8, 1e-3),
    samples=8,
    readings=(1, 3),
)


def run_demo(settings: Demo) -> Json:
    """Data, base, seeds, table, files."""
    from finegrain.recipes.demo_summary import cells, markdown, summarise, verdict

    started = time.perf_counter()
    console = Console(stderr=True)
    out = _folder(settings.out)
    scale = QUICK if settings.quick else FULL
    console.print(f"demo: {settings.seeds} seeds of {scale.planted.pairs} pairs and a pool of {scale.planted.pool}; everything goes to {out}")
    base = _base(out, scale)
    console.print(f"base model trained on {scale.base_answers} answers drawn without preference ({time.perf_counter() - started:.0f} s)")
    seeds = _seeds(settings, scale, base, out, console)
    summary = summarise(seeds)
    seconds = round(time.perf_counter() - started, 1)
    about = _about(scale, settings, seconds)
    (out / "demo.md").write_text(markdown(summary, about=about))
    said = verdict(summary)
    asked = {"settings": asdict(settings), "scale": asdict(scale)}
    record = {**asked, "wall_seconds": seconds, "summary": summary, "verdict": said, "seeds": seeds}
    (out / "demo.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    header, *lines = cells(summary)
    table = Table(*header, title="true quality of sampled answers (sum over sentences), mean and 95 % interval over seeds")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    console.print(f"{said}\n\n{about}\n\n{_next(out)}\n\nreport: {out / 'demo.md'}", highlight=False, soft_wrap=True)
    return {"out": str(out), "report": str(out / "demo.md"), "status": "finished", "wall_seconds": seconds, "verdict": said}


def _folder(out: Path | None) -> Path:
    if out is None:
        return Path(tempfile.mkdtemp(prefix="finegrain-demo-"))
    if (out / "demo.json").exists() or (out / "base").exists():
        raise CheckpointError(f"{out} already holds a demo; give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot create {out}: {error}") from error
    return out


def _base(out: Path, scale: Scale) -> Path:
    from finegrain.recipes.demo_base import make_base

    with (out / "base.log").open("w") as log, redirect_stderr(log):
        world = World(scale.planted, 0)
        return make_base(out, world, answers=scale.base_answers, steps=scale.base_steps, batch_size=scale.budget.batch_size)


def _seeds(settings: Demo, scale: Scale, base: Path, out: Path, console: Console) -> list[Json]:
    """Results in the order of the seeds; one process per worker where there are several."""
    from finegrain.recipes.demo_seed import SeedTask, run_seed

    tasks = [
        SeedTask(seed, scale.planted, scale.budget, scale.scorer_budget, base, out, scale.samples, scale.readings) for seed in range(settings.seeds)
    ]
    workers = min(settings.workers or os.cpu_count() or 1, len(tasks))
    found: dict[int, Json] = {}

    def tell(result: Json) -> None:
        found[result["seed"]] = result
        console.print(f"seed {result['seed']}: {len(result['rows'])} rows in {result['seconds']:.0f} s")

    if workers == 1:
        for task in tasks:
            tell(run_seed(task))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for done in as_completed([pool.submit(run_seed, task) for task in tasks]):
                tell(done.result())
    return [found[task.seed] for task in tasks]


def _about(scale: Scale, settings: Demo, seconds: float) -> str:
    planted, budget = scale.planted, scale.budget
    return (
        f"Regime: {planted.pairs} pairs, a pool of {planted.pool} others, {planted.sentences} sentences per answer of {planted.sentence_types} types "
        f"({planted.good:.0%} good, {planted.bad:.0%} bad), labels of temperature {planted.temperature:g}. Every row takes {budget.steps} steps of "
        f"{budget.batch_size} pairs at learning rate {budget.lr:g}; {settings.seeds} seeds; {seconds:.0f} s in all. Quality is read from "
        f"{scale.samples} sampled answers to held-out prompts where the policy is 1 and 4 nats from the base; a row that does not get there in "
        "every seed says so."
        + (" This was --quick: far too little to say anything about a method." if settings.quick else "")
    )


def _next(out: Path) -> str:
    truth = f"--model {out / 'base'} --data {out / 'seed-0' / 'truth.jsonl'} --out {out / 'own'}"
    commands = [
        "finegrain prefer --model YOUR_MODEL --data YOUR_PAIRS.jsonl --out run objective:dpo credit:asr",
        f"finegrain prefer {truth} objective:token-distillation credit:token-reward",
        "finegrain methods",
    ]
    return "\n".join(["next:", *(f"  {command}" for command in commands)])
