"""What the run's own scorer is worth: its table of words, from pairs and spans, as masks, soft weights and targets, against tuned dpo.

    python benchmarks/own_scorer.py --work build/own-scorer

The demo's planted world, base model, steps and rows per step, on seeds that are not the demo's. Rate and beta of dpo are tuned on two further
seeds; targets take the demo's rate and beta as they are, and their size is swept. Every cell is a row on a seed, on one thread; its result is
kept in --work, so that a stopped benchmark goes on. `--part K/N` makes every N-th cell only, for several processes; without it the missing cells
are made and benchmarks/results/own-scorer.{json,md} written.
"""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from command import flags, write
from places import RESULTS
from tables import shown

from finegrain.credit.asr import ASR
from finegrain.credit.confidence import Confidence
from finegrain.credit.signals import Table
from finegrain.credit.token_reward import TokenReward
from finegrain.data.planted import World, read_jsonl, write_planted
from finegrain.objectives.dpo import DPO
from finegrain.objectives.token_distillation import TokenDistillation
from finegrain.ops.stats import mean_interval
from finegrain.recipes.demo.path import PathReader, best_within
from finegrain.recipes.demo.rows import BETA, DemoRow, Scorers, job
from finegrain.recipes.demo.run import FULL, base_of
from finegrain.recipes.demo.seed import SeedTask, probes_of, set_apart
from finegrain.recipes.training.align import align
from finegrain.runs import read_record
from finegrain.types import Json

FIRST, TUNING = 200, (300, 301)
"""Seeds; the demo reports 0 to 4."""
READINGS = (4, 6, 10, 14, 20, 26, 34, 42, 63)
"""More than the demo's five, since targets of several sizes move at several speeds; the same for all rows."""
RATE = FULL.budget.lr
TRIALS = ((RATE, BETA), (2 * RATE, BETA), (RATE, BETA / 2), (RATE, 2 * BETA))
"""Rates and betas of dpo."""
SIZES = {"annotated": (1.0, 1.5, 4.0), "pairs": (2.0, 4.0)}
KNOWS = {"pairs": "pairs", "annotated": "pairs and spans"}
WITHIN = (1.0, 4.0)
KEEP_ALL = {"min_kept": 0.0, "max_kept": 1.0}


@dataclass(frozen=True)
class Cell:
    """A row of the table on a seed."""

    row: DemoRow
    seed: int
    rate: float = RATE

    @property
    def file(self) -> str:
        """Where its result is kept."""
        return f"{self.row.name.replace(' ', '-').replace(',', '').replace(':', '')}-{self.seed}.json"


def dpo(rate: float, beta: float) -> DemoRow:
    """A trial of the baseline."""
    return DemoRow(f"dpo, rate {rate:g}, beta {beta:g}", "pairs", "pairs", DPO(beta=beta))


def table_rows() -> list[DemoRow]:
    """Uses of the table, and of the spans without it."""
    rows = [
        DemoRow(f"targets, {KNOWS[data]}, size {size:g}", KNOWS[data], data, TokenDistillation(beta=BETA), lambda _, size=size: TokenReward(signal=Table(), size=size))
        for data, sizes in SIZES.items()
        for size in sizes
    ]
    uses = (("soft weights", Confidence(signal=Table(), **KEEP_ALL)), ("hard mask", ASR(signal=Table(), **KEEP_ALL)))
    rows += [DemoRow(f"{use}, {KNOWS[data]}", KNOWS[data], data, DPO(beta=BETA), lambda _, credit=credit: credit) for data in SIZES for use, credit in uses]
    return rows


def all_cells(seeds: Sequence[int]) -> Iterator[Cell]:
    """In order of what the table needs first."""
    for row in (dpo(RATE, BETA), *table_rows()):
        for seed in seeds:
            yield Cell(row, seed)
    for seed in TUNING:
        yield from (Cell(dpo(*trial), seed, trial[0]) for trial in TRIALS)


def result_of(cell: Cell, base: Path, work: Path) -> Json:
    """The cell's result, made now or before."""
    kept = work / "cells" / cell.file
    if kept.exists():
        return json.loads(kept.read_text())
    folder = work / f"seed-{cell.seed}"
    if not (folder / "held_out.jsonl").exists():
        write_planted(folder, World(FULL.planted, cell.seed))
    started = time.perf_counter()
    task = SeedTask(cell.seed, FULL.planted, replace(FULL.budget, lr=cell.rate), base, work, FULL.samples, READINGS)
    run = folder / cell.file.removesuffix(".json")
    shutil.rmtree(run, ignore_errors=True)  # of a benchmark that was stopped
    with set_apart(folder, f"log-{run.name}.txt"):
        files, probes, start = probes_of(task)
        reader = PathReader(probes, frozenset(READINGS), read_jsonl(getattr(files, cell.row.data)), [start])
        align(job(cell.row, files, base=base, scorers=Scorers("", ""), out=run, budget=task.budget, seed=cell.seed), reader)
    found: Json = {"row": cell.row.name, "seed": cell.seed, "auroc": reader.credit, "seconds": round(time.perf_counter() - started, 1)}
    found |= {f"within {kl:g}": best_within(reader.points, kl).quality for kl in WITHIN} | {"last kl": reader.points[-1].kl}
    found["path"] = [[point.step, round(point.kl, 3), round(point.quality, 3)] for point in reader.points]
    found["table"] = read_record(run).token_table
    kept.parent.mkdir(exist_ok=True)
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.rename(kept)
    print(json.dumps({name: value for name, value in found.items() if name != "path"}), flush=True)
    return found


def main() -> None:
    parser = flags(__doc__, seeds=5, out=RESULTS)
    parser.add_argument("--work", type=Path, required=True, help="folder of the cells")
    parser.add_argument("--part", default=None, help="K/N: every N-th cell from the K-th, counted from 0")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    base = options.work / "base"
    if not base.exists():
        base_of(options.work, FULL)
    seeds = range(FIRST, FIRST + options.seeds)
    cells = list(all_cells(seeds))
    if options.part is not None:
        first, step = map(int, options.part.split("/"))
        for cell in cells[first::step]:
            result_of(cell, base, options.work)
        return


if __name__ == "__main__":
    main()
