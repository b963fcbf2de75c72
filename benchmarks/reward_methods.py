"""Every method of reward modelling once, from the command line: one epoch on real rows from a small pretrained model, one summary row each.

    python benchmarks/reward_methods.py [--only WORDS]

This shows that a method runs, learns and stops, not how good it is: 160 rows, one seed. Reads ../shared; writes
benchmarks/results/reward-methods.{json,md}; about twelve minutes on one core. What the rows are is said in `inputs`.
"""

import gzip
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from command import flags, write
from held_out import ROLES
from places import DATA, RESULTS, SMALL_LM

from finegrain.data.load import load_examples
from finegrain.data.planted import write_jsonl
from finegrain.data.records import Example, Shape
from finegrain.data.truncate import Tokenise
from finegrain.generate.hf import sample_answers
from finegrain.types import Json

ROWS, HELD_OUT, LENGTH, SAMPLED = 160, 100, 256, 96


@dataclass(frozen=True)
class Run:
    """One row of the table: a command with its data; {folder} stands for where earlier runs and files lie."""

    name: str
    options: str
    data: str = "pairs"
    command: str = "reward"
    model: str = str(SMALL_LM)


RUNS = (
    Run("sequence", "head:sequence"),
    Run("sequence, adapter", "head:sequence --lora.rank 8"),
    Run("token", "head:token"),
    Run("ensemble", "head:ensemble"),
    Run("gaussian", "head:gaussian loss:bradley-terry"),
    Run("segment", "head:segment"),
    Run("segment, windows", "head:segment head.segmenter:windows --head.segmenter.size 8"),
    Run("diverse-preferences", "head:diverse-preferences loss:diverse-preferences"),
    Run("brme, from sequence", "head:gaussian-ensemble loss:brme", model="{folder}/sequence"),
    Run("ava-p", "head:gaussian loss:ava-p"),
    Run("ava-p, reward weight", "head:gaussian loss:ava-p head.reward-weight:attention"),
    Run("ava-d", "head:gaussian loss:ava-d"),
    Run("ava-p as objective", "objective:ava-p", command="prefer"),
    Run("ava-d as objective", "objective:ava-d", command="sft"),
    Run("secrets-rm", "head:sequence loss:secrets-rm --loss.lm-factor 0.1"),
    Run("secrets-rm, SimCSE", "head:sequence loss:secrets-rm loss.contrast:sim-cse"),
    Run("secrets-rm, SwAV", "head:sequence loss:secrets-rm loss.contrast:swav --loss.contrast.weight 0.1"),
    Run("secrets-rm, votes: soft labels and margins", "head:sequence", data="voted"),
    Run("secrets-rm, MetaRM", "head:sequence meta:meta-rm --meta.samples {folder}/samples.jsonl"),
    Run("tree-rm, labelled by sequence", "head:sequence", data="trees"),
    Run("irl-insights", "head:sequence loss:irl-insights", data="tuned-against-base"),
    Run("irl-sft", "head:token head.readout:mean loss:irl-sft", data="demonstration-against-sample"),
    Run("irl-sft as objective", "objective:irl-sft", data="demonstration-against-sample", command="prefer"),
    Run("fine-grained", "head:token loss:fine-grained", data="edits"),
    Run("step-labels", "head:step loss:step-labels", data="steps"),
    Run("rating-labels", "head:rating loss:rating-labels --head.classes 3", data="ratings"),
    Run(
        "lort, from rating-labels",
        "head:rating loss:rating-labels --head.classes 3 --frozen loss.target:odds-target loss.weighting:balanced --loss.calibrate",
        data="ratings",
        model="{folder}/rating-labels",
    ),
    Run("asr with the token model as scorer", "objective:dpo credit:asr --credit.scorer {folder}/token credit.baseline:batch-mean", command="prefer"),
)


def finegrain(*arguments: str) -> Json:
    """The last line of a command's stdout."""
    done = subprocess.run([sys.executable, "-m", "finegrain", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"finegrain {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: Json = json.loads(done.stdout.splitlines()[-1])
    return found


def inputs(folder: Path) -> None:
    """Files NAME.jsonl and NAME-held-out.jsonl of every kind of data, from published rows (ROWS, or what there are; the last ones held out)."""
    dialogues = rows_of("hh_harmless")
    split(folder, "pairs", dialogues, HELD_OUT)
    questions = rows_of("qa_feedback")
    split(folder, "edits", [edit(row) for row in questions], 60)
    split(folder, "steps", [steps(row) for row in questions], 60)
    split(folder, "ratings", [rating(row) for row in questions], 60)
    tokenizer = transformers.AutoTokenizer.from_pretrained(SMALL_LM)
    source = write_jsonl(folder / "dialogues.jsonl", dialogues[ROWS : ROWS + SAMPLED])
    examples = list(load_examples(str(source), tokenizer, shape=Shape.PREFERENCE, settings=Tokenise(max_length=LENGTH)).examples)
    write_jsonl(folder / "samples.jsonl", [{"prompt": e.prompt_text, "responses": [e.responses[role].text for role in ROLES]} for e in examples])
    finegrain(
        "sft",
        "--model",
        str(SMALL_LM),
        "--data",
        str(folder / "pairs.jsonl"),
        "--out",
        str(folder / "tuned"),
        *common(folder / "pairs-held-out.jsonl", "sft"),
    )
    short = [example for example in examples if len(example.prompt) < LENGTH // 2]
    base, tuned = (answers(model, tokenizer, short) for model in (SMALL_LM, folder / "tuned"))
    demonstrated = [f" {example.responses['chosen'].text}" for example in short]
    for name, better in (("tuned-against-base", tuned), ("demonstration-against-sample", demonstrated)):
        made = [{"prompt": e.prompt_text, "chosen": c, "rejected": r} for e, c, r in zip(short, better, base, strict=True)]
        split(folder, name, made, len(made) // 4)


def rows_of(name: str) -> list[Json]:
    """A published file."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as stream:
        return [json.loads(row) for row in stream]


def split(folder: Path, name: str, rows: Sequence[Json], held_out: int) -> None:
    """The first rows and the last ones."""
    write_jsonl(folder / f"{name}.jsonl", rows[: min(ROWS, len(rows) - held_out)])
    write_jsonl(folder / f"{name}-held-out.jsonl", rows[-held_out:])


def question(row: Json) -> str:
    """The prompt of the rows that are made of QA-feedback, passages left out."""
    return f"Question: {row['question']}\nAnswer:"


def edit(row: Json) -> Json:
    """A person's correction against what it corrects."""
    return {"prompt": question(row), "chosen": f" {row['feedback']['corrected-prediction']}", "rejected": f" {row['prediction 1']}"}


def steps(row: Json) -> Json:
    """Sentences of an answer; right where nobody marked an error in them."""
    errors = [(error["start"], error["end"]) for error in row["feedback"]["errors"]]
    sentences = list(re.finditer(r"\S.*?(?:[.!?](?=\s)|$)", row["prediction 1"], re.DOTALL))
    right = [not any(start < one.end() and one.start() < end for start, end in errors) for one in sentences]
    return {"prompt": question(row), "completions": [one[0] for one in sentences], "labels": right}


def rating(row: Json) -> Json:
    """3: no marked error, 2: one, 1: more."""
    return {"prompt": question(row), "response": f" {row['prediction 1']}", "ratings": {"faultless": max(1, 3 - len(row["feedback"]["errors"]))}}


def answers(model: Path, tokenizer: Any, examples: Sequence[Example]) -> list[str]:
    """One sampled answer to each prompt."""
    policy = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    sampled = sample_answers(policy, tokenizer, [example.prompt for example in examples], max_new_tokens=40, seed=0)
    return [tokenizer.decode(one, skip_special_tokens=True) for one in sampled]


def common(held_out: Path, command: str) -> list[str]:
    """Options of every run."""
    options = ["--max-length", str(LENGTH), "--examined", "0", "--device", "cpu", "--eval", str(held_out)]
    return options if command == "reward" else [*options, "--samples", "0"]


def prepare(run: Run, folder: Path) -> None:
    """Data that a command of ours makes."""
    if run.data == "voted":
        data, out = (str(folder / f"{name}.jsonl") for name in ("pairs", "voted"))
        method = ["method:secrets-rm", "method.repair:soft-margin"]
        finegrain("curate", "--model", str(SMALL_LM), "--data", data, "--out", out, *method, "--device", "cpu")
    if run.data == "trees":
        prompts = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        short = sorted(prompts, key=lambda row: len(row["prompt"]))[:12]
        source = write_jsonl(folder / "prompts.jsonl", [{"prompt": row["prompt"], "completion": row["responses"][0]} for row in short])
        tree = ["method:tree-rm", "--method.reward", str(folder / "sequence"), "--method.segment-tokens", "12", "--method.max-new-tokens", "36"]
        finegrain("curate", "--model", str(SMALL_LM), "--data", str(source), "--out", str(folder / "trees.jsonl"), *tree, "--device", "cpu")


def summary(run: Run, folder: Path) -> Json:
    """The command, and what its run directory says."""
    prepare(run, folder)
    out = folder / run.name
    held_out = folder / f"{run.data}-held-out.jsonl"
    given = common(held_out if held_out.exists() else folder / "pairs-held-out.jsonl", run.command)
    options = run.options.format(folder=folder).split()
    model, data = run.model.format(folder=folder), str(folder / f"{run.data}.jsonl")
    started = time.perf_counter()
    record = finegrain(run.command, "--model", model, "--data", data, "--out", str(out), *options, *given)
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    quarter = max(1, len(losses) // 4)
    return {
        "method": run.name,
        "command": f"{run.command} {run.options}".replace("{folder}/", ""),
        "data": run.data,
        "steps": len(losses),
        "loss_before": float(np.mean(losses[:quarter])),
        "loss_after": float(np.mean(losses[-quarter:])),
        "held_out": record["evaluation"],
        "train_seconds": record["train_seconds"],
        "seconds": round(time.perf_counter() - started, 1),
    }


MEASURES = ("eval_accuracy", "eval_step_accuracy", "eval_rating_exact", "eval_margin")
"""What of a run's evaluation stands in the table: the first that it has."""


OLDER = (
    "Rows with settings in brackets were made with these, when they were the defaults: before AVA's bound was weighed against its ranking and its "
    "rewards started as wide as the start model's temporal differences (docs/decisions/0015-balance.md). They have not been run again."
)


def line(row: Json) -> str:
    """A row of the table; `made_with`: settings of the time that are no longer the defaults."""
    measure = next((measure for measure in MEASURES if measure in row["held_out"]), None)
    value = row["held_out"][measure] if measure else None
    shown = f"{measure.removeprefix('eval_').replace('_', ' ')} {value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})" if value else "none"
    losses = f"{row['loss_before']:.3f} | {row['loss_after']:.3f}"
    name = row["method"] + (f" ({row['made_with']})" if "made_with" in row else "")
    return f"| {name} | `{row['command']}` | {row['data']} | {row['steps']} | {losses} | {shown} | {row['train_seconds']:.0f} |"


def page(rows: Sequence[Json]) -> str:
    """All of it as Markdown."""
    head = ["method", "`finegrain` …", "data", "steps", "loss, first quarter", "last quarter", "held out (95 % interval over rows)", "seconds"]
    about = (
        f"Every method once from the command line: one epoch over at most {ROWS} rows at the default rate from a model of 17 M parameters, one "
        "seed, one core shared with other work. It shows that a method runs and what it says, not how good it is: intervals over so few held-out "
        "rows are wide. Rows: pairs, hh_harmless; edits, steps and ratings, people's corrections and error spans of qa_feedback (a sentence with a "
        "marked error is a wrong step; three classes by the number of errors); the others are sampled or labelled by the models named. "
        "Made by `benchmarks/reward_methods.py`."
    )
    if any("made_with" in row for row in rows):
        about += f" {OLDER}"
    return "\n".join([about, "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *map(line, rows), ""])


def main() -> None:
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--only", nargs="+", help="parts of names; what they start from must be among them; other rows stay")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, failed = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs(folder)
        for run in RUNS:
            if options.only is None or any(part in run.name for part in options.only):
                try:
                    rows.append(summary(run, folder))
                    print(line(rows[-1]), flush=True)
                except RuntimeError as error:  # the others still say something
                    failed.append(f"{run.name}: {error}")
    file = options.out / "reward-methods.json"
    before = {row["method"]: row for row in json.loads(file.read_text())["rows"]} if file.exists() else {}
    known = before | {row["method"]: row for row in rows}
    kept = [known[run.name] for run in RUNS if run.name in known]
    write(options.out, "reward-methods", {"rows": kept}, page(kept))
    if failed:
        raise SystemExit("\n\n".join(failed))


if __name__ == "__main__":
    main()
