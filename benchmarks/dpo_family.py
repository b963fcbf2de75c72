"""Every objective of the dpo family on the demo's planted world: true quality of its answers at one and four nats from the base.

    python benchmarks/dpo_family.py --work build/dpo-family [--seeds 5] [--workers 2] [--pages]

The rows of `finegrain demo` that use credit say what credit does to dpo; this says what the loss does, credit aside. One row per objective:
the demo's world, pairs, base, optimiser, learning rate, steps, rows per step and readings along the path. Against a reference beta is the
demo's 0.5, without one the objective's own default; nothing else is tuned, so a row says little about what its method can do when it is.
`kto` and `nll` read single answers and get as many of them. Seeds that are done are kept in --work and not run again. --pages writes each
objective's line into its page under docs/methods; results go to benchmarks/results/dpo-family.{json,md}.
"""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from command import flags
from places import RESULTS, ROOT
from tables import shown

from finegrain import catalog
from finegrain.data.planted import World, read_jsonl, write_planted
from finegrain.errors import NonFiniteError
from finegrain.ops.stats import Interval, mean_interval
from finegrain.recipes.demo.path import PathReader, best_within
from finegrain.recipes.demo.rows import BETA, DemoRow, Scorers, job
from finegrain.recipes.demo.run import FULL, base_of
from finegrain.recipes.demo.seed import DISTANCES, SeedTask, probes_of, set_apart
from finegrain.recipes.training.align import align
from finegrain.types import Json

PAGES = ROOT / "docs/methods"
FAMILY = (
    *("dpo", "conservative", "robust", "ipo", "ipo-averaged", "hinge", "exo", "nca", "bco", "sppo", "apo-zero", "apo-down", "aot", "aot-unpaired"),
    *("sigmoid-norm", "discopop", "f-dpo", "reference-free", "simpo", "cpo", "orpo", "slic", "kto", "nll"),
)
SMOOTHED = {"conservative": 0.1, "robust": 0.1}
"""A label smoothing of 0 would make these two dpo itself."""
UNMEASURED = "Not measured yet on its own; it shares the loop, engine and tests of `dpo`."
RESULTS_FILE = "benchmarks/results/dpo-family.md"


def objective_of(name: str) -> Any:
    """The objective with the settings it is measured at."""
    kind = catalog.load("objective", name)
    made = kind()
    if "reference" in getattr(made, "needs", {"reference"}) and any(field.name == "beta" for field in fields(kind)):
        made = replace(made, beta=BETA)
    return replace(made, label_smoothing=SMOOTHED[name]) if name in SMOOTHED else made


def run_one(task: SeedTask, name: str) -> Json:
    """Best true quality within each distance of the base; None where the run broke off."""
    folder = task.out / f"seed-{task.seed}"
    kept = folder / f"{name}.json"
    if kept.exists():
        found: Json = json.loads(kept.read_text())
        return found
    started = time.perf_counter()
    with set_apart(folder, f"log-{name}.txt"):
        files, probes, start = probes_of(task)
        reader = PathReader(probes, frozenset(task.readings), read_jsonl(files.pairs), [start])
        row = DemoRow(name, "pairs", "pairs", objective_of(name), command="sft" if name == "nll" else "prefer")
        budget = replace(task.budget, batch_size=2 * task.budget.batch_size) if name == "kto" else task.budget
        asked = job(row, files, base=task.base, scorers=Scorers("", ""), out=folder / name, budget=budget, seed=task.seed)
        broken = None
        try:
            align(asked, reader)
        except NonFiniteError as error:
            broken = str(error)
    best = {f"within_{kl:g}": best_within(reader.points, kl).quality for kl in DISTANCES}
    result = {**best, "kl": reader.points[-1].kl, "quality": reader.points[-1].quality, "broken": broken, "seconds": time.perf_counter() - started}
    kept.write_text(json.dumps(result))
    return result


def prepare(work: Path, seeds: int) -> list[SeedTask]:
    """The base and every seed's data, on disk."""
    work.mkdir(parents=True, exist_ok=True)
    base = work / "base"
    if not (base / "run.json").exists() or json.loads((base / "run.json").read_text())["status"] != "finished":
        base = base_of(work, FULL)
    tasks = [SeedTask(seed, FULL.planted, FULL.budget, base, work, FULL.samples, FULL.readings) for seed in range(seeds)]
    for task in tasks:
        folder = work / f"seed-{task.seed}"
        if not folder.exists():
            folder.mkdir()
            write_planted(folder, World(task.planted, task.seed))
    return tasks


def summarise(found: Mapping[str, Sequence[Json]]) -> dict[str, Json]:
    """By objective, means over seeds and paired differences to dpo."""
    summary: dict[str, Json] = {}
    for name, runs in found.items():
        cells: Json = {"broken": sum(run["broken"] is not None for run in runs)}
        for measure in (f"within_{kl:g}" for kl in DISTANCES):
            cells[measure] = mean_interval([run[measure] for run in runs]).as_json()
            pairs = zip(runs, found["dpo"], strict=True)
            cells[f"{measure} - dpo"] = mean_interval([run[measure] - base[measure] for run, base in pairs]).as_json()
        cells["kl"] = mean_interval([run["kl"] for run in runs]).as_json()
        summary[name] = cells
    return summary


def table(summary: Mapping[str, Json]) -> str:
    """The results as Markdown."""
    lines = ["| objective | within 1 nat | minus dpo | within 4 nats | minus dpo | KL at the end |", "| --- | --- | --- | --- | --- | --- |"]
    for name, cells in summary.items():
        gains = ["" if name == "dpo" else shown(Interval(**cells[f"within_{kl:g} - dpo"]), digits=2, sign="+") for kl in DISTANCES]
        best = [shown(Interval(**cells[f"within_{kl:g}"]), digits=2) for kl in DISTANCES]
        lines.append(f"| {name} | {best[0]} | {gains[0]} | {best[1]} | {gains[1]} | {shown(Interval(**cells['kl']), digits=2)} |")
    return "\n".join(lines)


def sentence(name: str, summary: Mapping[str, Json], seeds: int) -> str:
    """What a page says of its objective."""
    cells = summary[name]
    near, far = (shown(Interval(**cells[f"within_{kl:g}"]), digits=2) for kl in DISTANCES)
    difference = Interval(**cells["within_1 - dpo"])
    compared = "" if name == "dpo" else f", {shown(difference, 2, '+')} against `dpo` on the same pairs"
    broken = f" {cells['broken']} of {seeds} runs broke off with a loss that was not finite." if cells["broken"] else ""
    beta = f"beta {BETA:g}" if "reference" in getattr(objective_of(name), "needs", {"reference"}) else "the default settings"
    return (
        f"On the [demo](../guides/demo.md)'s planted world, without credit, at {beta} and the learning rate that was chosen for `dpo`: true quality "
        f"per answer {near} within 1 nat of the base{compared}, {far} within 4 nats (mean ± half of a 95 % interval over {seeds} seeds; "
        f"`{RESULTS_FILE}`).{broken} {'On' if name == 'dpo' else 'Nothing was tuned for it, and on'} natural text it is not measured."
    )


def write_pages(summary: Mapping[str, Json], seeds: int) -> None:
    """The sentence in place of "Not measured yet", or of an older one."""
    for name in summary:
        page, told = PAGES / f"{name}.md", sentence(name, summary, seeds)
        lines = page.read_text().splitlines()
        heading = lines.index("## Our numbers")
        own = [place for place, line in enumerate(lines) if line == UNMEASURED or RESULTS_FILE in line]
        if own:
            lines[own[0]] = told
        else:
            lines[heading + 1 : heading + 1] = ["", told]
        page.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run what is missing, then table, json and pages."""
    parser = flags(__doc__, seeds=5)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pages", action="store_true")
    asked = parser.parse_args()
    tasks = prepare(asked.work, asked.seeds)
    found: dict[str, list[Json]] = {name: [] for name in FAMILY}
    with ProcessPoolExecutor(asked.workers, mp_context=get_context("spawn")) as pool:
        waiting = [(name, pool.submit(run_one, task, name)) for task in tasks for name in FAMILY]
        for name, result in waiting:
            found[name].append(result.result())
    summary = summarise(found)
    about = (
        f"{FULL.planted.pairs} pairs, {FULL.budget.steps} steps of {FULL.budget.batch_size} pairs at learning rate {FULL.budget.lr:g}; beta {BETA:g} "
        "against a reference, the objective's default without one; label smoothing 0.1 for conservative and robust. Means over "
        f"{asked.seeds} seeds ± half of a 95 % interval (Student t; differences paired by seed). Quality as in `finegrain demo`."
    )
    head = "# The dpo family on the planted world, without credit\n\n`python benchmarks/dpo_family.py --work build/dpo-family --pages`"
    (RESULTS / "dpo-family.md").write_text(f"{head}\n\n{about}\n\n{table(summary)}\n")
    (RESULTS / "dpo-family.json").write_text(json.dumps({"about": about, "seeds": asked.seeds, "summary": summary, "runs": found}, indent=1) + "\n")
    if asked.pages:
        write_pages(summary, asked.seeds)


if __name__ == "__main__":
    main()
