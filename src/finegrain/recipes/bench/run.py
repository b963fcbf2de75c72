"""`finegrain bench credit`: a base model, cells by stages, each kept in a file, and the table of what the labels bought."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from finegrain.commands.bench import BenchCreditSettings
from finegrain.configure import to_json
from finegrain.data.planted import Planted, World
from finegrain.errors import CheckpointError
from finegrain.files import replace_file
from finegrain.recipes.bench.cell import Cell, CellRunner
from finegrain.recipes.bench.rows import rows_of
from finegrain.recipes.bench.stages import BenchStages, halve, measure_rows, tune_rows
from finegrain.recipes.bench.table import describe_regime, render_table, render_tuning, summarise_rows
from finegrain.recipes.demo.base import make_base
from finegrain.recipes.demo.rows import Budget
from finegrain.recipes.demo.run import open_workers
from finegrain.recipes.demo.seed import set_apart
from finegrain.recipes.quiet import quiet_transformers
from finegrain.terminal import write_line
from finegrain.types import Json

TYPES = (112, 24)
"""Sentence types of the full and of the quick benchmark."""
HOW = ("scorer", "noise", "context", "types", "shortcut", "seconds_per_pair", "seconds_per_span", "scale")
"""What cells depend on; a folder holds the cells of one choice of them."""


@dataclass(frozen=True)
class BenchScale:
    """How much is generated, trained and compared."""

    sentences: int
    held_out: int
    base_answers: int
    base_steps: int
    budget: Budget
    """Its rate is not read: rates are trials."""
    samples: int
    readings: tuple[int, ...]
    stages: BenchStages


FULL = BenchScale(
    sentences=6,
    held_out=128,
    base_answers=9600,
    base_steps=300,
    budget=Budget(63, 32, 0.0),
    samples=256,
    readings=(4, 6, 10, 14, 20, 26, 34, 42, 63),
    stages=BenchStages(
        rates=(1.2e-3, 2.4e-3, 4.8e-3),
        betas=(0.25, 0.5, 1.0),
        widenings=2,
        pairs=100,
        tuning_seeds=(1000, 1001),
        screening_seeds=(500, 501, 502),
        kept=4,
        final_pairs=(30, 100, 300, 1000),
        final_seeds=tuple(range(10)),
    ),
)
QUICK = BenchScale(
    sentences=4,
    held_out=32,
    base_answers=3200,
    base_steps=100,
    budget=Budget(30, 16, 0.0),
    samples=64,
    readings=(3, 6, 12, 30),
    stages=BenchStages(
        rates=(2.4e-3, 4.8e-3),
        betas=(0.125, 0.25, 0.5),
        widenings=0,
        pairs=60,
        tuning_seeds=(1000,),
        screening_seeds=(500, 501),
        kept=2,
        final_pairs=(30, 60),
        final_seeds=(0, 1, 2),
    ),
)
"""Without widening, since three minutes allow no more trials; rows whose best trial is at the edge are named."""


def run_bench_credit(settings: BenchCreditSettings) -> Json:
    """Tune, screen, measure, write; a folder of the same settings goes on."""
    started = time.perf_counter()
    quiet_transformers()
    scale = QUICK if settings.quick else FULL
    rows = list(rows_of(settings))
    _open_folder(settings, scale)
    runner = CellRunner(settings, _planted(settings, scale), scale.budget, _base(settings.out, scale), scale.samples, scale.readings)
    kept = len(rows) if settings.uses or settings.objectives else scale.stages.kept
    stages = replace(scale.stages, final_pairs=settings.pairs or scale.stages.final_pairs, kept=kept)
    made = CellsMade(runner, settings.workers or os.cpu_count() or 1)
    tuned = tune_rows(rows, stages, made)
    write_line(f"tuned {len(rows)} rows by {len(tuned.rates) * len(tuned.betas)} trials each ({time.perf_counter() - started:.0f} s)")
    screened = measure_rows(rows, tuned.trials, stages.pairs, stages.screening_seeds, made)
    survivors = halve(rows, screened, stages.kept)
    write_line(f"screened; measured further: {', '.join(row.name for row in survivors)} ({time.perf_counter() - started:.0f} s)")
    tables = {f"Screening: {stages.pairs} pairs, {len(stages.screening_seeds)} seeds": (rows, stages.pairs, stages.screening_seeds, screened)}
    for pairs in stages.final_pairs:
        results = measure_rows(survivors, tuned.trials, pairs, stages.final_seeds, made)
        tables[f"{pairs} pairs, {len(stages.final_seeds)} seeds"] = (survivors, pairs, stages.final_seeds, results)
    regime = describe_regime(settings, runner.planted)
    summaries = {
        title: summarise_rows(own, results, [runner.prepare(pairs, seed) for seed in seeds], settings)
        for title, (own, pairs, seeds, results) in tables.items()
    }
    page = ["# What the uses of one scorer buy", "", _about(settings, scale), "", *render_tuning(tuned)]
    page += [line for title, lines in reversed(summaries.items()) for line in render_table(lines, regime, title)]
    replace_file(settings.out / "bench.md", "\n".join(page))
    seconds = round(time.perf_counter() - started, 1)
    record = {
        "settings": to_json(settings) | {"out": None},
        "regime": regime,
        "scale": asdict(scale),
        "tuned": tuned._asdict(),
        "survivors": [row.name for row in survivors],
        "tables": summaries,
        "cells": list(made.found.values()),
        "cell_seconds": round(sum(result["seconds"] for result in made.found.values()), 1),
        "wall_seconds": seconds,
    }
    replace_file(settings.out / "bench.json", json.dumps(record, indent=1) + "\n")
    write_line("\n".join(page))
    return {
        "out": str(settings.out),
        "table": str(settings.out / "bench.md"),
        "cells": len(made.found),
        "wall_seconds": seconds,
        "status": "finished",
    }


class CellsMade:
    """Makes the cells that are missing, over processes; every cell is kept as soon as it is done."""

    def __init__(self, runner: CellRunner, workers: int) -> None:
        self.runner, self.workers = runner, workers
        self.found: dict[Cell, Json] = {}

    def __call__(self, cells: Sequence[Cell]) -> list[Json]:
        """Results in the order of the cells."""
        self.found |= {cell: kept for cell in cells if cell not in self.found and (kept := self.runner.kept(cell)) is not None}
        missing = [cell for cell in dict.fromkeys(cells) if cell not in self.found]
        if missing:
            seeds = list(dict.fromkeys((cell.pairs, cell.seed) for cell in missing))
            write_line(f"{len(cells) - len(missing)} of {len(cells)} cells are there; making {len(missing)}")
            with open_workers(min(self.workers, len(missing))) as submit:
                for prepared in [submit(self.runner.prepare, *seed) for seed in seeds]:
                    prepared()
                waiting = [(cell, submit(self.runner.run, cell)) for cell in missing]
                self.found |= {cell: result() for cell, result in waiting}
        return [self.found[cell] for cell in cells]


def _open_folder(settings: BenchCreditSettings, scale: BenchScale) -> None:
    """A folder of this benchmark, new or begun with the same settings and the same scale; stages may differ, since a cell says its own."""
    size = {name: value for name, value in to_json(scale).items() if name != "stages"}
    out, asked = settings.out, {name: value for name, value in (to_json(settings) | {"scale": size}).items() if name in HOW}
    begun = out / "settings.json"
    if begun.exists():
        before = json.loads(begun.read_text())
        differ = [name for name in HOW if before.get(name) != asked.get(name)]
        if differ:
            raise CheckpointError(f"{out} holds a benchmark with another {', '.join(differ)}; give another --out, or the same settings to go on")
        return
    if out.is_dir() and any(out.iterdir()):
        raise CheckpointError(f"{out} holds files that no benchmark wrote; give a folder of its own as --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot create {out}: {error}") from error
    replace_file(begun, json.dumps(asked, indent=1) + "\n")


def _planted(settings: BenchCreditSettings, scale: BenchScale) -> Planted:
    return Planted(
        pairs=scale.stages.pairs,
        held_out_pairs=scale.held_out,
        sentences=scale.sentences,
        sentence_types=settings.types or TYPES[settings.quick],
        temperature=settings.noise,
        context_dependence=settings.context,
    )


def _base(out: Path, scale: BenchScale) -> Path:
    """The base model: it speaks all words of the world, whatever the regime."""
    base = out / "base"
    if not (out / "base-ready").exists():
        write_line(f"base model: {scale.base_steps} steps on {scale.base_answers} answers drawn without preference")
        for begun in (base, out / "untrained"):  # of a benchmark that was stopped
            shutil.rmtree(begun, ignore_errors=True)
        with set_apart(out, "log-base.txt"):
            world = World(Planted(sentences=scale.sentences), 0)
            make_base(out, world, answers=scale.base_answers, steps=scale.base_steps, batch_size=32)
        (out / "base-ready").touch()
    return base


def _about(settings: BenchCreditSettings, scale: BenchScale) -> str:
    text = (
        f"Made by `finegrain bench credit{' --quick' if settings.quick else ''}`. Every row takes {scale.budget.steps} steps of "
        f"{scale.budget.batch_size} pairs. Quality: true quality per answer of {scale.samples} answers sampled for held-out prompts, the best of "
        f"{len(scale.readings)} readings of the path within 1 or 4 nats per answer of the base; means over seeds ± half of a 95 % interval (Student "
        "t), differences paired by seed. Pairs in order: share of held-out pairs, with a shortcut of adversarial ones, that the last policy puts in "
        "order. Passages: marked or rewritten by people; an answer in which nothing was marked counts as one."
    )
    return text + (" This was --quick: it says little of the methods." if settings.quick else "")
