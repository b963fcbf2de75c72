"""What the run's own scorer is worth: its table of words, from pairs and spans, as targets, soft weights and masks, against dpo, all equally tuned.

    python benchmarks/own_scorer.py --work build/own-scorer

The demo's planted world, base model, steps and rows per step, on seeds that are not the demo's. Every method is tried with three rates times
three values of its own setting (beta of dpo, size of the targets) on three seeds that are not reported; the best trial within 1 nat and the best
within 4 are then run on the reported seeds. Every cell is a run on a seed, on one thread; its result is kept in --work, so that a stopped
benchmark goes on. `--part K/N` makes every N-th cell of the tuning only, for several processes; without it the missing cells are made and
benchmarks/results/own-scorer.{json,md} written. About an hour on one core.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
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

TUNED_ON = range(300, 303)
FIRST = 210
"""Seed; the demo reports 0 to 4, and earlier versions of the table were looked at on 200 to 204."""
READINGS = (4, 6, 10, 14, 20, 26, 34, 42, 63)
"""More than the demo's five, since targets of several sizes move at several speeds; the same for all rows."""
RATES = tuple(FULL.budget.lr * factor for factor in (0.5, 1.0, 2.0))
BETAS = (BETA / 2, BETA, 2 * BETA)
SIZES = (1.4, 2.8, 5.6)
WITHIN = (1.0, 4.0)
KEEP_ALL = {"min_kept": 0.0, "max_kept": 1.0}


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    data: str
    """Which of the world's files it trains on."""
    make: Callable[[float], tuple[Any, Any]]
    """Objective and credit, from the value of its own setting."""
    setting: str = "beta"
    values: Sequence[float] = BETAS

    def trial(self, rate: float, value: float) -> "Trial":
        """With a rate and a value of its setting."""
        objective, credit = self.make(value)
        return Trial(self, rate, value, DemoRow(self.name, self.data, self.data, objective, credit and (lambda _: credit)))


@dataclass(frozen=True)
class Trial:
    """A method with settings."""

    method: Method
    rate: float
    value: float
    row: DemoRow

    def __str__(self) -> str:
        return f"rate {self.rate:g}, {self.method.setting} {self.value:g}"


def targets(size: float) -> tuple[Any, Any]:
    """Token targets of the table."""
    return TokenDistillation(beta=BETA), TokenReward(signal=Table(), size=size)


METHODS = (
    Method("dpo", "pairs", lambda beta: (DPO(beta=beta), None)),
    Method("targets, pairs", "pairs", targets, "size", SIZES),
    Method("targets, pairs and spans", "annotated", targets, "size", SIZES),
    Method("soft weights, pairs and spans", "annotated", lambda beta: (DPO(beta=beta), Confidence(signal=Table(), **KEEP_ALL))),
    Method("hard mask, pairs and spans", "annotated", lambda beta: (DPO(beta=beta), ASR(signal=Table(), **KEEP_ALL))),
)


def trials(method: Method) -> list[Trial]:
    """All of a method's."""
    return [method.trial(rate, value) for rate in RATES for value in method.values]


def result_of(trial: Trial, seed: int, base: Path, work: Path) -> Json:
    """The run's result, made now or before."""
    name = re.sub(r"[^\w.]+", "-", f"{trial.method.name}-{trial}-{seed}")
    kept = work / "cells" / f"{name}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    folder = work / f"seed-{seed}"
    if not folder.exists():
        part = work / f"part-{seed}-{os.getpid()}"
        write_planted(part, World(FULL.planted, seed))
        with suppress(OSError):  # another process was faster
            part.rename(folder)
    started = time.perf_counter()
    task = SeedTask(seed, FULL.planted, replace(FULL.budget, lr=trial.rate), base, work, FULL.samples, READINGS)
    run = folder / name
    with set_apart(folder, f"log-{name}.txt"):
        files, probes, start = probes_of(task)
        reader = PathReader(probes, frozenset(READINGS), read_jsonl(getattr(files, trial.method.data)), [start])
        shutil.rmtree(run, ignore_errors=True)  # of a benchmark that was stopped
        align(job(trial.row, files, base=base, scorers=Scorers("", ""), out=run, budget=task.budget, seed=seed), reader)
    found: Json = {"method": trial.method.name, "trial": str(trial), "seed": seed, "auroc": reader.credit}
    found |= {f"within {kl:g}": best_within(reader.points, kl).quality for kl in WITHIN}
    found["path"] = [[point.step, round(point.kl, 3), round(point.quality, 3)] for point in reader.points]
    found |= {"table": read_record(run).token_table, "seconds": round(time.perf_counter() - started, 1)}
    shutil.rmtree(run)
    kept.parent.mkdir(exist_ok=True)
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.rename(kept)
    print(json.dumps({name: value for name, value in found.items() if name != "path"}), flush=True)
    return found


def page(tuning: Sequence[Json], chosen: Mapping[str, Mapping[str, str]], results: Sequence[Json], seeds: Sequence[int]) -> str:
    """The table: quality within 1 and 4 nats, each under the trial that was best in it, and its paired difference to dpo's; and the tuning."""

    def values(method: str, within: str) -> np.ndarray:
        own = [r for r in results if r["method"] == method and r["trial"] == chosen[method][within]]
        return np.array([next(r[within] for r in own if r["seed"] == seed) for seed in seeds])

    names = [f"within {kl:g}" for kl in WITHIN]
    lines = ["| row | within 1 nat | minus dpo | trial | within 4 nats | minus dpo | trial | AUROC of sentences |", "| --- " * 8 + "|"]
    for method in METHODS:
        cells = []
        for name in names:
            less = values(method.name, name) - values("dpo", name)
            cells += [shown(mean_interval(values(method.name, name)), 2), "" if method.name == "dpo" else shown(mean_interval(less), 2, "+")]
            cells.append(chosen[method.name][name])
        known = [r["auroc"] for r in results if r["method"] == method.name and r["trial"] == chosen[method.name][names[0]]]
        lines.append(f"| {method.name} | {' | '.join(cells)} | {'' if known[0] is None else shown(mean_interval(known), 2)} |")
    lines += ["", f"Means over the tuning's seeds, {TUNED_ON[0]} to {TUNED_ON[-1]}, within 1 / 4 nats:", ""]
    for method in METHODS:
        lines += [f"| {method.name} | {' | '.join(f'rate {rate:g}' for rate in RATES)} |", "| --- " * (len(RATES) + 1) + "|"]
        for value in method.values:
            means = [[_mean(tuning, method.trial(rate, value), name) for name in names] for rate in RATES]
            lines.append(f"| {method.setting} {value:g} | {' | '.join(' / '.join(f'{mean:.2f}' for mean in own) for own in means)} |")
        lines.append("")
    ordered = []
    for method in METHODS[1:3]:
        accuracy = [r["table"]["accuracy"]["mean"] for r in results if r["method"] == method.name and r["trial"] == chosen[method.name][names[0]]]
        ordered.append(f"{shown(mean_interval(accuracy), 2)} from {method.name.partition(', ')[2]}")
    planted = FULL.planted
    about = (
        f"Made by `benchmarks/own_scorer.py`: {planted.pairs} pairs of the demo's world, spans on {planted.annotated:.0%} of the answers with an "
        f"annotator who errs in {planted.annotation_error:.0%} of the sentences; {FULL.budget.steps} steps of {FULL.budget.batch_size} rows. Every "
        f"row has {len(RATES) * len(BETAS)} trials on seeds that are not reported, and runs its best within each distance on seeds {seeds[0]} to "
        f"{seeds[-1]}: means ± half of a 95 % interval, differences paired by seed. Quality is that of the best of {len(READINGS)} readings of the "
        f"path within 1 or 4 nats per answer of the base. The tables put pairs that they have not seen in order with an accuracy of "
        f"{', '.join(ordered)}. How much the labels could tell at most: [the ceiling](planted-ceiling.md)."
    )
    return "\n".join(["# The run's own scorer: a table of words", "", about, "", *lines])


def _mean(results: Sequence[Json], trial: Trial, within: str) -> float:
    return float(np.mean([r[within] for r in results if r["method"] == trial.method.name and r["trial"] == str(trial)]))


def main() -> None:
    parser = flags(__doc__, seeds=10, out=RESULTS)
    parser.add_argument("--work", type=Path, required=True, help="folder of the cells")
    parser.add_argument("--part", default="0/1", help="K/N: every N-th cell from the K-th, counted from 0")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    base = options.work / "base"
    if not base.exists():
        base_of(options.work, FULL)
    first, step = map(int, options.part.split("/"))
    cells = [(trial, seed) for method in METHODS for trial in trials(method) for seed in TUNED_ON]
    tuning = [result_of(trial, seed, base, options.work) for trial, seed in cells[first::step]]
    if step > 1:
        return
    names = [f"within {kl:g}" for kl in WITHIN]
    best = {method.name: {name: max(trials(method), key=lambda trial: _mean(tuning, trial, name)) for name in names} for method in METHODS}
    seeds = range(FIRST, FIRST + options.seeds)
    reported = [trial for own in best.values() for trial in dict.fromkeys(own.values())]
    results = [result_of(trial, seed, base, options.work) for trial in reported for seed in seeds]
    chosen = {method: {name: str(trial) for name, trial in own.items()} for method, own in best.items()}
    write(options.out, "own-scorer", {"chosen": chosen, "tuning": tuning, "results": results}, page(tuning, chosen, results, seeds), indent=None)


if __name__ == "__main__":
    main()
