"""What the run's own scorer is worth: its table of words, from pairs and spans, as targets, soft weights and masks, against tuned dpo.

    python benchmarks/own_scorer.py --work build/own-scorer

The demo's planted world, base model, steps and rows per step, on seeds that are not the demo's. Targets are tried in three sizes, dpo in three
pairs of rate and beta; the rows "swept" take the best point of all three paths, as every row takes the best of its own. Every cell is a row on
a seed, on one thread; its result is kept in --work, so that a stopped benchmark goes on. `--part K/N` makes every N-th cell only, for several
processes; without it the missing cells are made and benchmarks/results/own-scorer.{json,md} written. About 25 minutes on one quiet core.
"""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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

FIRST = 200
"""Seed; the demo reports 0 to 4."""
READINGS = (4, 6, 10, 14, 20, 26, 34, 42, 63)
"""More than the demo's five, since targets of several sizes move at several speeds; the same for all rows."""
RATE = FULL.budget.lr
TRIALS = ((RATE, BETA), (RATE / 2, BETA), (RATE, 2 * BETA))
"""Rates and betas of dpo: as many trials as targets have sizes."""
SIZES = {"annotated": (1.0, 1.5, 4.0), "pairs": (2.0, 3.0, 4.0)}
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
        DemoRow(
            f"targets, {KNOWS[data]}, size {size:g}",
            KNOWS[data],
            data,
            TokenDistillation(beta=BETA),
            lambda _, size=size: TokenReward(signal=Table(), size=size),
        )
        for data, sizes in SIZES.items()
        for size in sizes
    ]
    rows.append(
        DemoRow("soft weights, pairs and spans", KNOWS["annotated"], "annotated", DPO(beta=BETA), lambda _: Confidence(signal=Table(), **KEEP_ALL))
    )
    rows.append(DemoRow("hard mask, pairs and spans", KNOWS["annotated"], "annotated", DPO(beta=BETA), lambda _: ASR(signal=Table(), **KEEP_ALL)))
    return rows


def all_cells(seeds: Sequence[int]) -> Iterator[Cell]:
    """In order of what the table needs first."""
    rows = [(dpo(*trial), trial[0]) for trial in TRIALS] + [(row, RATE) for row in table_rows()]
    return (Cell(row, seed, rate) for row, rate in rows for seed in seeds)


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


SWEPT = {"dpo": "dpo, rate", "targets, pairs": "targets, pairs, size", "targets, pairs and spans": "targets, pairs and spans, size"}
"""What the swept rows are made of: rows whose names begin so."""


def swept(results: Sequence[Json], seeds: Sequence[int]) -> list[Json]:
    """By method and seed, the best point within each distance over all its trials."""
    found = []
    for name, begin in SWEPT.items():
        for seed in seeds:
            own = [result for result in results if result["seed"] == seed and result["row"].startswith(begin)]
            best = {f"within {kl:g}": max(result[f"within {kl:g}"] for result in own) for kl in WITHIN}
            found.append({"row": f"{name}, swept", "seed": seed, "auroc": own[0]["auroc"], **best})
    return found


def page(results: Sequence[Json], seeds: Sequence[int]) -> str:
    """The table: quality within 1 and 4 nats, and its paired difference to dpo; swept rows against swept dpo."""
    rows = list(dict.fromkeys(result["row"] for result in results))
    of = lambda row, name: [next(r[name] for r in results if r["row"] == row and r["seed"] == seed) for seed in seeds]
    lines = ["| row | within 1 nat | minus dpo | within 4 nats | minus dpo | AUROC of sentences |", "| --- " * 6 + "|"]
    for row in rows:
        base = "dpo, swept" if row.endswith("swept") else dpo(*TRIALS[0]).name
        cells = []
        for name in (f"within {kl:g}" for kl in WITHIN):
            less = [one - other for one, other in zip(of(row, name), of(base, name), strict=True)]
            cells += [shown(mean_interval(of(row, name)), 2), "" if row == base else shown(mean_interval(less), 2, "+")]
        known = of(row, "auroc")
        lines.append(f"| {row} | {' | '.join(cells)} | {'' if known[0] is None else shown(mean_interval(known), 2)} |")
    accuracy = {
        words: [r["table"]["accuracy"]["mean"] for r in results if r["row"] == f"targets, {words}, size {SIZES[data][0]:g}"]
        for data, words in KNOWS.items()
    }
    ordered = ", ".join(f"{shown(mean_interval(values), 2)} from {words}" for words, values in accuracy.items())
    planted = FULL.planted
    about = (
        f"Made by `benchmarks/own_scorer.py`: {planted.pairs} pairs of the demo's world, spans on {planted.annotated:.0%} of the answers with an "
        f"annotator who errs in {planted.annotation_error:.0%} of the sentences; {FULL.budget.steps} steps of {FULL.budget.batch_size} rows, rate "
        f"{RATE:g} and beta {BETA:g} unless the row says otherwise; seeds {seeds[0]} to {seeds[-1]}, means ± half of a 95 % interval, differences "
        f"paired by seed. Quality of the best of {len(READINGS)} readings of the path within 1 or 4 nats per answer of the base. A swept row takes "
        "the best of its three trials, and is compared with dpo's best of three, which flatters both; sizes 1.5 and 3 and dpo's trials were added "
        "after a part of these seeds had been seen. The tables put pairs that they have not seen in order with an "
        f"accuracy of {ordered}."
    )
    return "\n".join(["# The run's own scorer: a table of words", "", about, "", *lines, ""])


def main() -> None:
    parser = flags(__doc__, seeds=5, out=RESULTS)
    parser.add_argument("--work", type=Path, required=True, help="folder of the cells")
    parser.add_argument("--part", default="0/1", help="K/N: every N-th cell from the K-th, counted from 0")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    base = options.work / "base"
    if not base.exists():
        base_of(options.work, FULL)
    seeds = range(FIRST, FIRST + options.seeds)
    first, step = map(int, options.part.split("/"))
    results = [result_of(cell, base, options.work) for cell in list(all_cells(seeds))[first::step]]
    if step == 1:
        results = [*swept(results, seeds), *results]
        write(options.out, "own-scorer", results, page(results, seeds), indent=None)


if __name__ == "__main__":
    main()
