"""Every method of online RL once, from the command line: six buffers of real prompts, and `finegrain again`, one summary row each.

    python benchmarks/online_methods.py [--only NAMES] [--work build/online-methods]

This shows that a method runs, what it changes and that its record repeats it, not how good it is: 48 short prompts, 4 answers of 32 tokens, one
seed, a model of 17 M parameters. The reward models are trained here first. Reads ../shared; writes benchmarks/results/online-methods.{json,md};
about half an hour on one core. A row that is done stays done: a stopped script goes on. A method is one entry of `RUNS`.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from command import flags, write
from offline_objectives import changed, read_lines, same, train_rows
from places import RESULTS, ROOT, SMALL_LM, describe_processor
from reward_methods import edit, finegrain, question, rows_of

from finegrain.data.planted import write_jsonl
from finegrain.types import Json

PROMPTS, HELD_OUT, PAIRS = 48, 32, 160
LONGEST = 300
"""Characters of a prompt, and of an answer of the pairs that reward models are trained on."""
FIXED = (
    "--prompts 8 --sampling.answers 4 --sampling.max-new-tokens 32 --max-length 160 --lr 3e-5 --max-steps 6 --samples 1 --eval-temperature 1 "
    "--device cpu"
)


@dataclass(frozen=True)
class Run:
    """One row of the table: options of the command, {models} standing for the folder of reward models, and measures of its own to show."""

    name: str
    options: str
    data: str = "dialogues"
    own: tuple[str, ...] = ()


SEQUENCE, TOKEN, SEGMENT, EDITED = (f"--reward {{models}}/{name}" for name in ("sequence", "token", "segment", "edits"))
RUNS = (
    Run("ppo-rlhf", f"algorithm:ppo {SEQUENCE} --algorithm.epochs 1"),
    Run("ppo-rlhf, critic of its own", f"algorithm:ppo algorithm.critic:separate-critic {SEQUENCE} --algorithm.epochs 1"),
    Run("rloo", f"algorithm:rloo {SEQUENCE}"),
    Run("grpo", f"algorithm:grpo leash:in-loss {SEQUENCE}"),
    Run("reinforce-pp", f"algorithm:reinforce-pp {SEQUENCE}"),
    Run("ma-rlhf", f"algorithm:ppo advantage:macro-gae {SEQUENCE} --algorithm.epochs 1"),
    Run("r3hf", f"algorithm:ppo credit:prefix-difference {SEQUENCE} --algorithm.epochs 1"),
    Run("abc", f"algorithm:ppo credit:attention {SEQUENCE} --algorithm.epochs 1"),
    Run("segment-reward", f"algorithm:ppo credit:head {SEGMENT} --algorithm.epochs 1"),
    Run("token head", f"algorithm:ppo credit:head {TOKEN} --algorithm.epochs 1"),
    Run("fine-grained-supervision", f"algorithm:ppo credit:head {EDITED} --algorithm.epochs 1", data="questions"),
)


def make_inputs(folder: Path) -> None:
    """Prompts of two kinds, and the reward models."""
    folder.mkdir(parents=True, exist_ok=True)
    dialogues = [row for row in rows_of("hh_harmless") if max(len(row["chosen"]), len(row["rejected"])) <= 2 * LONGEST]
    questions = rows_of("qa_feedback")
    asked = {
        "dialogues": [row["chosen"][: row["chosen"].rindex("Assistant:") + len("Assistant:")] for row in dialogues],
        "questions": [question(row) for row in questions],
    }
    for name, prompts in asked.items():
        short = [prompt for prompt in dict.fromkeys(prompts) if len(prompt) <= LONGEST]
        assert len(short) >= PROMPTS + HELD_OUT, f"{name}: {len(short)} prompts"
        write_jsonl(folder / f"{name}.jsonl", [{"prompt": prompt} for prompt in short[:PROMPTS]])
        write_jsonl(folder / f"{name}-held-out.jsonl", [{"prompt": prompt} for prompt in short[-HELD_OUT:]])
    write_jsonl(folder / "pairs.jsonl", dialogues[:PAIRS])
    write_jsonl(folder / "edits.jsonl", [edit(row) for row in questions][:PAIRS])
    for name, options in {
        "sequence": "head:sequence",
        "token": "head:token",
        "segment": "head:segment",
        "edits": "head:token loss:fine-grained",
        "gaussian-ensemble": "head:gaussian-ensemble loss:brme",
    }.items():
        out, data = folder / name, "edits" if name == "edits" else "pairs"
        if not (out / "report.html").exists():
            start = folder / "sequence" if "brme" in options else SMALL_LM
            given = ["--model", str(start), "--data", str(folder / f"{data}.jsonl"), "--out", str(out), *options.split()]
            resumed = ["--resume"] if (out / "run.json").exists() else []
            finegrain("reward", *given, "--max-length", "192", "--samples", "0", "--examined", "0", "--device", "cpu", *resumed)


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
    inputs = work / "inputs"
    given = ["--model", str(SMALL_LM), "--data", str(inputs / f"{run.data}.jsonl"), "--eval", str(inputs / f"{run.data}-held-out.jsonl")]
    began = time.perf_counter()
    finegrain("online", "--out", str(folder / "run"), *given, *run.options.format(models=inputs).split(), *FIXED.split())
    seconds = time.perf_counter() - began
    finegrain("again", str(folder / "run" / "run.json"), "--out", str(folder / "again"), "--yes")
    shown = run.options.format(models="MODELS").replace("MODELS/", "")
    summary = {"method": run.name, "command": f"online {shown}", "data": run.data, "seconds": round(seconds, 1), **describe(run, folder)}
    kept.write_text(json.dumps(summary, indent=1, ensure_ascii=False))
    return summary


def describe(run: Run, folder: Path) -> Json:
    """What the run directories say of one row."""
    record = json.loads((folder / "run" / "run.json").read_text())
    lines, again = read_lines(folder / "run"), read_lines(folder / "again")
    buffers = [line for line in lines if "buffer" in line]
    timed = [[{name: value for name, value in line.items() if "second" not in name} for line in own] for own in (lines, again)]
    return {
        "updates": len(lines),
        "reward": [buffers[0]["reward"], buffers[-1]["reward"]],
        "density": buffers[-1].get("advantage/density"),
        "kl": buffers[-1].get("kl"),
        "held_out": [record[part]["eval_reward"] for part in ("evaluation_before", "evaluation")],
        "own": {name: buffers[-1].get(name, lines[-1].get(name)) for name in run.own},
        "changed": changed(folder / "run"),
        "train_seconds": record["train_seconds"],
        "again": {"same_weights": same(folder / "run", folder / "again"), "same_metrics": timed[0] == timed[1]},
    }


def line(row: Json) -> str:
    """A row of the table."""
    own = [f"{name} {value:.3f}" for name, value in row["own"].items() if value is not None]
    held = [f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in row["held_out"]]
    again = ", ".join(f"{name.replace('_', ' ')}: {'yes' if same else 'no'}" for name, same in row["again"].items())
    cells = [row["method"], f"`{row['command']}`", row["data"], f"{row['updates']}", f"{row['reward'][0]:.3f} to {row['reward'][1]:.3f}", *held]
    cells += ["" if row[name] is None else f"{row[name]:.3f}" for name in ("density", "kl")]
    cells += [", ".join(own), f"{row['changed']['share']:.0%}", f"{row['train_seconds']:.0f}", again]
    return f"| {' | '.join(cells)} |"


def page(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows as Markdown."""
    about = (
        f"Every method of online RL once from the command line: six buffers of 8 prompts with 4 answers of at most 32 tokens, from a model of 17 M "
        f"parameters, {HELD_OUT} held-out prompts answered at temperature 1, one seed, one core shared with other work. It shows that a method "
        "runs, what it changes and that `finegrain again` repeats it, not how good it is: six updates at rate 3e-5 move little. Prompts: dialogues, "
        f"of hh_harmless; questions, of qa_feedback without the passages. Reward models: {PAIRS} pairs of hh_harmless (edits: people's corrections "
        "of qa_feedback), one epoch. density is the share of the advantage's variance within answers, kl the distance from the start model in nats "
        "per token; weights are compared as stored, in bfloat16. Made by `benchmarks/online_methods.py`."
    )
    head = ["method", "`finegrain` …", "prompts", "updates", "reward, first to last buffer", "held out before", "held out after", "density", "kl"]
    head += ["own measures", "weights changed", "training, s", "`finegrain again`"]
    return "\n".join([about, "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *map(line, rows), ""])


def main() -> None:
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--only", nargs="+", help="names of methods; other rows of the results stay")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "online-methods")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    make_inputs(options.work / "inputs")
    by_name = {run.name: run for run in RUNS}
    file = options.out / "online-methods.json"
    rows, failed = train_rows(file, list(by_name), options.only, lambda name: train(by_name[name], options.work), line)
    write(options.out, "online-methods", {"machine": describe_processor(), "rows": rows}, page(rows))
    if failed:
        raise SystemExit("\n\n".join(failed))


if __name__ == "__main__":
    main()
