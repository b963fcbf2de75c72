"""Every offline objective once, from the command line: one epoch on real rows of its own kind, and `finegrain again`, one summary row each.

    python benchmarks/offline_objectives.py [--only NAMES] [--work build/offline-objectives] [--pages]

This shows that a method runs, what it changes and that its record repeats it, not how good it is: 64 short rows, one seed, a model of 17 M
parameters. Reads ../shared; writes benchmarks/results/offline-objectives.{json,md}; about half an hour on one core. A row that is done
stays done: a stopped script goes on. A method is one entry of `RUNS`; what its data are stands in `make_inputs`. --pages writes a sentence into
each method's page under docs/methods.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from command import flags, write
from held_out import ROLES
from places import RESULTS, ROOT, SMALL_LM, describe_processor
from reward_methods import finegrain, question, rows_of
from safetensors.torch import load_file

from finegrain.data.planted import write_jsonl
from finegrain.types import Json

ROWS, HELD_OUT = 64, 32
LONGEST = 500
"""Characters of a row's two texts: no row of so few is cut."""
RESULTS_FILE = "benchmarks/results/offline-objectives.md"
BEFORE = ["--lr", "1e-12", "--max-steps", "1", "--batch-size", "2"]
"""A step that changes nothing, for the evaluation of the start."""


@dataclass(frozen=True)
class Run:
    """One row of the table: a command with its data, and what of its evaluation or of its last logged line is the method's own."""

    name: str
    options: str
    data: str = "pairs"
    own: tuple[str, ...] = ()
    command: str = "prefer"
    length: int = 256
    batch: int = 8
    rate: str = "3e-5"
    kept: str = ""
    """What says how much of the rows or tokens trained."""
    before: bool = False
    """Whether held-out rows are read before training too: other losses are log 2 there, where the policy is the reference."""


RUNS = (
    Run("dpo", "objective:dpo"),
    Run("tdpo1", "objective:tdpo1", own=("kl/chosen", "kl/rejected")),
    Run("tdpo2", "objective:tdpo2", own=("kl/chosen", "kl/rejected")),
    Run("sparsepo", "objective:sparsepo", own=("kl/masked_rejected",), kept="mask/zero_reward_chosen"),
    Run("mapo", "objective:mapo", own=("kl/masked_rejected",), kept="credit/kept_chosen"),
    Run("cpl", "objective:cpl"),
    Run("pngd", "objective:pngd"),
    Run("token-sparsity", "objective:token-sparsity", before=True),
    Run("dpop", "objective:dpop"),
    Run("r-dpo", "objective:r-dpo", before=True),
    Run("rrhf", "objective:rrhf", before=True),
    Run("irl-sft", "objective:irl-sft"),
    Run("figa, corrections", "objective:figa", data="corrections", kept="gate/open", rate="1e-4", before=True),
    Run("figa, edits as pairs", "objective:figa objective.rows:pairs", data="edits", kept="gate/open", rate="1e-4", before=True),
    Run("bfpo", "objective:bfpo objective.unflagged:assume-safe --second-share 0.5 --train-only down_proj", data="flagged", before=True),
    Run(
        "lcpo",
        "objective:lcpo objective.annotators:per-annotator --holdout 0",
        data="annotated",
        own=("labels/right", "labels/suspected"),
        length=48,
        batch=16,
        rate="1e-4",
    ),
)


def make_inputs(folder: Path) -> None:
    """Files NAME.jsonl and NAME-held-out.jsonl of every kind of data, from published rows (the last ones held out); 'annotated' has all rows."""
    folder.mkdir(parents=True, exist_ok=True)
    split(folder, "pairs", _short(rows_of("hh_harmless"), "chosen", "rejected"))
    corrected = [row for row in rows_of("qa_feedback") if row["feedback"].get("corrected-prediction")]
    given = [(question(row), row["prediction 1"], row["feedback"]["corrected-prediction"]) for row in corrected]
    corrections = [{"prompt": prompt, "original": f" {original}", "corrected": f" {better}"} for prompt, original, better in given]
    corrections = _short(corrections, "original", "corrected", longest=2 * LONGEST)
    split(folder, "corrections", corrections)
    split(folder, "edits", [{"prompt": row["prompt"], "chosen": row["corrected"], "rejected": row["original"]} for row in corrections])
    people = rows_of("haluquestqa")
    split(folder, "flagged", _short([_flagged(row) for row in people], "chosen", "rejected", longest=2 * LONGEST))
    write_jsonl(folder / "annotated.jsonl", people)


def split(folder: Path, name: str, rows: Sequence[Json]) -> None:
    """The first rows and the last ones."""
    assert len(rows) >= ROWS + HELD_OUT, f"{name}: {len(rows)} rows"
    write_jsonl(folder / f"{name}.jsonl", rows[:ROWS])
    write_jsonl(folder / f"{name}-held-out.jsonl", rows[-HELD_OUT:])


def _short(rows: Sequence[Json], *texts: str, longest: int = LONGEST) -> list[Json]:
    return [row for row in rows if sum(len(row[text]) for text in texts) <= longest]


def _flagged(row: Json) -> Json:
    """A pair that says of both answers whether experts marked no error of fact in them, in place of safety."""
    right = {role: all(span["aspect"] != "factuality" for span in row[f"{role}_spans"] or []) for role in ROLES}
    answers = {role: f" {row[role]}" for role in ROLES}
    return {"prompt": f"Question: {row['prompt']}\nAnswer:", **answers, **{f"is_{role}_safe": int(own) for role, own in right.items()}}


def arguments_of(run: Run, inputs: Path) -> list[str]:
    """What every command of a row has."""
    data, held_out = inputs / f"{run.data}.jsonl", inputs / f"{run.data}-held-out.jsonl"
    sources = f"{data} + {inputs / 'pairs.jsonl'}" if "--second-share" in run.options else str(data)
    evaluation = ["--eval", str(held_out)] if held_out.exists() else []
    fixed = ["--max-length", str(run.length), "--samples", "0", "--examined", "0", "--device", "cpu"]
    return ["--model", str(SMALL_LM), "--data", sources, *evaluation, *run.options.split(), *fixed]


def train(run: Run, work: Path) -> Json:
    """The run, its repetition from its own record, and what both say; kept in the run's folder."""
    folder = work / run.name.replace(", ", "-").replace(" ", "-")
    kept = folder / "summary.json"
    if kept.exists():
        found: Json = json.loads(kept.read_text())
        return found
    if folder.exists():  # a stopped script left it
        shutil.rmtree(folder)
    folder.mkdir()
    given, training = arguments_of(run, work / "inputs"), ["--lr", run.rate, "--batch-size", str(run.batch)]
    start = finegrain(run.command, "--out", str(folder / "start"), *given, *BEFORE)["evaluation"] if run.before else {}
    began = time.perf_counter()
    finegrain(run.command, "--out", str(folder / "run"), *given, *training)
    seconds = time.perf_counter() - began
    finegrain("again", str(folder / "run" / "run.json"), "--out", str(folder / "again"))
    summary = {"method": run.name, "command": f"{run.command} {run.options}", "data": run.data, "seconds": round(seconds, 1)}
    summary |= describe(run, folder, start)
    if "per-annotator" in run.options:
        summary["reliabilities"] = reliabilities(run, folder, [*given, *training])
    kept.write_text(json.dumps(summary, indent=1, ensure_ascii=False))
    return summary


def describe(run: Run, folder: Path, start: Mapping[str, Any]) -> Json:
    """What the run directories say of one row."""
    record = json.loads((folder / "run" / "run.json").read_text())
    lines = read_lines(folder / "run")
    again = read_lines(folder / "again")
    held_out = record.get("evaluation") or {}
    size = max(1, len(lines) // 4)
    return {
        "rows": record["data"]["rows"],
        "kept_rows": record["data"]["kept"],
        "steps": len(lines),
        "loss": [sum(line["loss"] for line in part) / size for part in (lines[:size], lines[-size:])],
        "held_out_loss": [start.get("eval_loss", {}).get("mean"), held_out.get("eval_loss", {}).get("mean")],
        "held_out": {name: held_out[f"eval_{name}"] for name in ("margin", "accuracy") if f"eval_{name}" in held_out},
        "own": {name: find(name, held_out, lines) for name in run.own},
        "kept": {run.kept: find(run.kept, held_out, lines)} if run.kept else {},
        "changed": changed(folder / "run"),
        "train_seconds": record["train_seconds"],
        "again": {"same_weights": same(folder / "run", folder / "again"), "same_losses": [x["loss"] for x in lines] == [x["loss"] for x in again]},
    }


def read_lines(run: Path) -> list[Json]:
    """The logged steps."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def find(name: str, held_out: Mapping[str, Any], lines: Sequence[Json]) -> float | None:
    """A measure of the held-out rows, or of the last step."""
    own = held_out.get(f"eval_{name}", {}).get("mean")
    return own if own is not None else lines[-1].get(name)


def changed(run: Path) -> Json:
    """Share of the weights that differ from the start's as they are stored (bfloat16), and the distance relative to the start's norm."""
    start, end = (load_file(folder / "model.safetensors") for folder in (SMALL_LM, run))
    count, differ = sum(one.numel() for one in start.values()), sum(int((start[name] != end[name]).sum()) for name in start)
    apart = sum(float((end[name].double() - start[name].double()).square().sum()) for name in start)
    norm = sum(float(one.double().square().sum()) for one in start.values())
    return {"share": differ / count, "relative": (apart / norm) ** 0.5}


def same(*runs: Path) -> bool:
    """Whether every file of weights, modules too, is the same byte for byte."""
    names = [sorted(file.name for file in run.glob("*.safetensors")) for run in runs]
    first, *others = runs
    return all(own == names[0] for own in names) and all(
        (first / name).read_bytes() == (other / name).read_bytes() for name in names[0] for other in others
    )


def reliabilities(run: Run, folder: Path, given: Sequence[str]) -> Json:
    """By annotator: rows, and the reliability that one process and two found."""
    rows: dict[str, int] = {}
    for line in (folder.parent / "inputs" / f"{run.data}.jsonl").read_text().splitlines():
        annotator = json.loads(line)["annotator"]
        rows[annotator] = rows.get(annotator, 0) + 1
    two = folder / "two-processes"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "finegrain"]
    subprocess.run([*launch, run.command, "--out", str(two), *given], check=True, stdout=subprocess.DEVNULL)
    found = [json.loads((place / "run.json").read_text())["tables"]["reliability"] for place in (folder / "run", two)]
    table = {name: {"rows": rows[name], "one": found[0][name], "two": found[1][name]} for name in sorted(rows, key=lambda name: -rows[name])}
    apart = max(abs(own["one"] - own["two"]) for own in table.values())
    return {"annotators": table, "largest_difference": apart}


def line(row: Json) -> str:
    """A row of the table."""
    measures = [f"{name} {value['mean']:+.3f}" if name == "margin" else f"{name} {value['mean']:.2f}" for name, value in row["held_out"].items()]
    own = [f"{name} {value:.3f}" for name, value in row["own"].items() if value is not None]
    kept = "".join(f"{name} {value:.2f}" for name, value in row["kept"].items() if value is not None)
    again = ", ".join(f"{name.replace('_', ' ')}: {'yes' if same else 'no'}" for name, same in row["again"].items())
    held = " to ".join("" if value is None else f"{value:.4g}" for value in row["held_out_loss"]).removeprefix(" to ").removesuffix(" to ")
    cells = [row["method"], f"`{row['command']}`", row["data"], f"{row['kept_rows']}", f"{row['loss'][0]:.4g} to {row['loss'][1]:.4g}", held]
    cells += [", ".join([*measures, *own]), kept, f"{row['changed']['share']:.0%} ({row['changed']['relative']:.1e})", f"{row['train_seconds']:.0f}"]
    return f"| {' | '.join([*cells, again])} |"


def page(facts: Mapping[str, Any]) -> str:
    """The rows as Markdown, and the annotators' reliabilities."""
    head = ["method", "`finegrain` …", "data", "rows", "loss, first to last quarter", "held-out loss, start to end", "held out and own measures"]
    head += ["kept", "weights changed (relative distance)", "training, s", "`finegrain again`"]
    about = (
        f"Every offline objective once from the command line: one epoch over {ROWS} short rows (lcpo: all) at rate 3e-5 (figa, lcpo: 1e-4) in "
        f"steps of 8 rows (lcpo: 16) from a model of 17 M parameters, {HELD_OUT} held-out rows, one seed, one core shared with other work. It shows "
        "that a method runs, what it changes and that `finegrain again` repeats it, not how good it is. A held-out loss without a start is log 2 "
        "there, as the policy is the reference. Margins are of log-ratios, times beta where the objective "
        "has one; weights are compared as stored, in bfloat16. Rows: pairs, hh_harmless; corrections and edits, people's corrections of "
        "qa_feedback without the passages; flagged, haluquestqa's pairs, whose flags of safety say that experts marked no error of fact, with "
        "`pairs` as the buffer; annotated, all of haluquestqa, answers cut. Made by `benchmarks/offline_objectives.py`."
    )
    lines = [about, "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *map(line, facts["rows"])]
    for row in facts["rows"]:
        if "reliabilities" in row:
            own = row["reliabilities"]
            apart = f"largest difference between one and two processes {own['largest_difference']:.1e}"
            lines += ["", f"Reliabilities of {row['method']} by annotator; {apart}.", ""]
            lines += ["| annotator | rows | one process | two processes |", "| --- | --- | --- | --- |"]
            lines += [f"| {name} | {one['rows']} | {one['one']:.7f} | {one['two']:.7f} |" for name, one in own["annotators"].items()]
    return "\n".join([*lines, ""])


def sentence(row: Json) -> str:
    """What a method's page says of a row."""
    start, end = row["held_out_loss"]
    begin = math.log(2) if start is None else start
    found = [f"training loss {row['loss'][0]:.3g} in the first quarter of the steps and {row['loss'][1]:.3g} in the last"]
    if end is not None:
        outcome = "falls" if end < begin else "does not fall"
        found.append(f"the loss of {HELD_OUT} held-out rows {outcome} ({begin:.4g} at the start, {end:.4g} at the end)")
    if "accuracy" in row["held_out"]:
        share = row["held_out"]["accuracy"]
        found.append(f"{share['mean']:.0%} of them are in order ({share['low']:.0%} to {share['high']:.0%})")
    if "reliabilities" in row:
        ends = [one["one"] for one in row["reliabilities"]["annotators"].values()]
        apart = f"the same from one process and two within {row['reliabilities']['largest_difference']:.0e}"
        found.append(f"the reliabilities of {len(ends)} annotators start at 0.9 and end between {min(ends):.2f} and {max(ends):.2f}, {apart}")
    kept = [f"{name} {value:.2f}" for name, value in row["kept"].items() if value is not None]
    found += [f"`{one.split()[0]}` {one.split()[1]}" for one in kept] + [f"{row['changed']['share']:.0%} of the weights change"]
    same = "gives the same weights bit for bit" if row["again"]["same_weights"] else "does not give the same weights"
    what = f"one epoch over {row['kept_rows']} rows of real text ({row['data']}) with a model of 17 M parameters"
    return (
        f"From the command, {what}: {', '.join(found)}, and `finegrain again` {same} (`{RESULTS_FILE}`: what runs and changes, not how good it is)."
    )


def write_pages(rows: Sequence[Json]) -> None:
    """The sentence at the end of a page's numbers, in place of an older one."""
    for name in dict.fromkeys(row["method"].partition(",")[0] for row in rows):
        file = ROOT / "docs" / "methods" / f"{name}.md"
        first, *others = (row for row in rows if row["method"].partition(",")[0] == name)
        own = sentence(first)
        for row in others:
            alike = (row["loss"], row["held_out_loss"]) == (first["loss"], first["held_out_loss"])
            own += f" `{row['command']}` on the same rows gives the same figures." if alike else f" {sentence(row)}"
        lines = [one for one in file.read_text().splitlines() if RESULTS_FILE not in one]
        place = lines.index("## Example")
        while not lines[place - 1]:
            del lines[place - 1]
            place -= 1
        lines[place:place] = ["", own, ""]
        file.write_text("\n".join(lines) + "\n")


def train_rows(
    file: Path, names: Sequence[str], only: Sequence[str] | None, make: Callable[[str], Json], line: Callable[[Json], str]
) -> tuple[list[Json], list[str]]:
    """(rows in the order of the names: those of the results' file, and those that are asked for made anew; what failed, in words)."""
    known = {row["method"]: row for row in json.loads(file.read_text())["rows"]} if file.exists() else {}
    failed = []
    for name in names:
        if only is None or name in only:
            try:
                known[name] = make(name)
                print(line(known[name]), flush=True)
            except RuntimeError as error:  # the others still say something
                failed.append(f"{name}: {error}")
    return [known[name] for name in names if name in known], failed


def main() -> None:
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--only", nargs="+", help="names of methods; other rows of the results stay")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "offline-objectives")
    parser.add_argument("--pages", action="store_true", help="write the sentences of the methods' pages too")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    make_inputs(options.work / "inputs")
    by_name = {run.name: run for run in RUNS}
    rows, failed = train_rows(
        options.out / "offline-objectives.json", list(by_name), options.only, lambda name: train(by_name[name], options.work), line
    )
    facts = {"machine": describe_processor(), "rows": rows}
    write(options.out, "offline-objectives", facts, page(facts))
    if options.pages:
        write_pages([row for row in facts["rows"] if row["method"] != "dpo"])
    if failed:
        raise SystemExit("\n\n".join(failed))


if __name__ == "__main__":
    main()
