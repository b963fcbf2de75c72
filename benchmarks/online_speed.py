"""Online RL against TRL 1.16's GRPOTrainer: completions per second and peak memory, same prompts, same model, one update per batch.

    python benchmarks/online_speed.py --trl PYTHON [--blocks 3] [--updates 4]

A model of 16,384 words (6 layers, width 384), float32, 8 prompts with 8 answers of 64 tokens, the leash on, learning rate 1e-5: each side is a
process of its own, sides alternate, medians over blocks; the first update of every run is left out (both sides warm up). PYTHON is the
interpreter of TRL's environment, as benchmarks/speed.py makes it (.venv-trl). Sampling is also compared with Hugging Face's `generate` on the
same prompts in benchmarks/sampling.py. Writes benchmarks/results/online-speed.{json,md}.

    python benchmarks/online_speed.py --ours SPEC

is one run of our side. This file imports the standard library and `places` only before it runs one: a child's peak memory is never less than
its parent's.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from command import write
from places import RESULTS, ROOT, describe_processor

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
PROMPTS = (62, 256)
"""Tokens of a prompt."""
Answer = dict[str, Any]


def ours(spec: Answer) -> Answer:
    """One run of the command in this process."""
    import torch

    from finegrain.cli import main

    torch.set_num_threads(spec["threads"])
    options = ["online", "--model", spec["model"], "--data", spec["prompts"], "--out", spec["out"], "--reward", spec["reward"], "algorithm:grpo"]
    options += [
        "leash:in-loss",
        "--leash.beta",
        str(spec["beta"]),
        "--prompts",
        str(spec["prompts_per_update"]),
        "--sampling.answers",
        str(spec["answers"]),
    ]
    options += ["--sampling.max-new-tokens", str(spec["tokens"]), "--max-steps", str(spec["updates"]), "--lr", "1e-5", "--optim.schedule", "constant"]
    options += ["--holdout", "0", "--samples", "0", "--device", "cpu", "--max-length", "512"]
    if main(options):
        raise SystemExit(1)
    lines = [json.loads(line) for line in (Path(spec["out"]) / "metrics.jsonl").read_text().splitlines()]
    parts = {name: sum(line[f"seconds/{name}"] for line in lines[1:]) for name in ("generate", "measure", "reward", "update")}
    steps = [line["step_seconds"] for line in lines]
    return {"steps": steps, "parts": parts, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def run(command: list[str]) -> Answer:
    """The last line of a process."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:300]} failed:\n{done.stderr[-3000:]}")
    found: Answer = json.loads(done.stdout.splitlines()[-1])
    return found


def make_inputs() -> dict[int, str]:
    """The model, and files of prompts of exact lengths."""
    model = WORK / "llama-words-16384-6x384"
    specs = [
        {
            "model": str(model), "folder": str(WORK / f"online-prompts-{length}"), "pairs": 64, "batch_size": 8, "max_length": 512, "seed": 0,
            "vocabulary": 16_384, "tokenizer": "words", "layers": 6, "width": 384, "prompt": length, "answer": 8,
        }
        for length in PROMPTS
    ]  # fmt: skip
    WORK.mkdir(exist_ok=True)
    subprocess.run([sys.executable, str(HERE / "inputs.py"), json.dumps(specs)], check=True)
    files = {}
    for spec in specs:
        rows = [json.loads(line) for line in (Path(spec["folder"]) / "pairs.jsonl").read_text().splitlines()]
        file = Path(spec["folder"]) / "prompts.jsonl"
        file.write_text("".join(json.dumps({"prompt": row["prompt"].removeprefix("<bos>")}) + "\n" for row in rows))
        files[int(str(spec["prompt"]))] = str(file)
    return files


def report(rows: list[Answer], threads: int) -> str:
    """The page."""
    lines = [
        "# Online RL against TRL's GRPOTrainer",
        "",
        f"{describe_processor()['processor']}; {threads} thread{'s' if threads > 1 else ''}. A model of 16,384 words, 6 layers, width 384, float32;",
        "8 prompts, 8 answers of 64 tokens, leash in the loss, one update per batch; alternating blocks",
        f"({len(rows[0]['runs']['ours'])}), medians, the first update of",
        "every run left out.",
        "",
        "| prompt tokens | completions/s, ours | TRL | ratio | peak memory, ours | TRL | ratio | of ours: sampling, measuring, update |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        parts = " / ".join(f"{row['parts'][name] / sum(row['parts'].values()):.0%}" for name in ("generate", "measure", "update"))
        rate, memory = row["ours"] / row["trl"], row["ours_bytes"] / row["trl_bytes"]
        lines.append(
            f"| {row['prompt']} | {row['ours']:.2f} | {row['trl']:.2f} | {rate:.1f} | {row['ours_bytes'] / 2**20:.0f} MiB | "
            f"{row['trl_bytes'] / 2**20:.0f} MiB | {memory:.2f} | {parts} |"
        )
    shares = ", ".join(f"{row['trl_sampling']:.0%} at {row['prompt']} tokens" for row in rows)
    return "\n".join([*lines, "", f"Of TRL's time sampling takes {shares}.", ""])


def main() -> None:
    """All rows, or one run of our side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", default=str(ROOT / ".venv-trl" / "bin" / "python"))
    parser.add_argument("--ours")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS, help="tokens of a prompt, of " + ", ".join(map(str, PROMPTS)))
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    if asked.ours:
        print(json.dumps(ours(json.loads(asked.ours))))
        return
    model, rows = str(WORK / "llama-words-16384-6x384"), []
    for length, prompts in make_inputs().items():
        if length not in asked.prompts:
            continue
        found: dict[str, list[Answer]] = {"ours": [], "trl": []}
        for block in range(asked.blocks):
            for side in ("ours", "trl") if block % 2 == 0 else ("trl", "ours"):
                with tempfile.TemporaryDirectory() as folder:
                    spec = {
                        "model": model, "prompts": prompts, "out": f"{folder}/run", "updates": asked.updates, "threads": asked.threads, "tokens": 64,
                        "answers": 8, "prompts_per_update": 8, "beta": 0.04, "reward": f"{HERE / 'speed_reward.py'}:reward",
                    }  # fmt: skip
                    script = [sys.executable, __file__, "--ours"] if side == "ours" else [asked.trl, str(HERE / "online_speed_trl.py")]
                    found[side].append(run([*script, json.dumps(spec)]))
        rate = {side: statistics.median(64 * len(one["steps"][1:]) / sum(one["steps"][1:]) for one in many) for side, many in found.items()}
        peak = {f"{side}_bytes": statistics.median(one["peak_bytes"] for one in many) for side, many in found.items()}
        sampling = statistics.median(one["sampling"] / sum(one["steps"]) for one in found["trl"])
        rows.append({"prompt": length, **rate, **peak, "parts": found["ours"][0]["parts"], "trl_sampling": sampling, "runs": found})
    write(RESULTS, "online-speed", rows, report(rows, asked.threads))


if __name__ == "__main__":
    main()
