"""GSM8K with a small model, from the command line: share of answers in the form `#### n`, and share correct, before and after online RL.

    python benchmarks/online_gsm8k.py [--work build/online-gsm8k] [--buffers 40]

A model of 17 M parameters solves none of these problems, so the reward has a part for the form; correctness is logged and reported as it is. The
functions in gsm8k_rewards.py are those of a GRPO script, unchanged. Held-out problems are answered with temperature 1 and the same noise before
and after. Reads ../shared; at most 15 minutes on two cores; a stopped script goes on. Writes benchmarks/results/online-gsm8k.{json,md}.
"""

import gzip
import json
from pathlib import Path

import numpy as np
from command import flags, write
from places import DATA, RESULTS, ROOT, SMALL_LM, describe_processor
from reward_methods import finegrain

from finegrain.data.planted import write_jsonl
from finegrain.ops.proportions import wilson
from finegrain.types import Json

FUNCTIONS = ROOT / "benchmarks" / "gsm8k_rewards.py"
TRAIN, HELD_OUT, TOKENS = 320, 128, 96


def make_data(work: Path) -> None:
    """Problems as text, with the solution as a column that the reward reads."""
    with gzip.open(DATA / "gsm8k_train.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line, _ in zip(stream, range(TRAIN + HELD_OUT), strict=False)]
    made = [{"prompt": f"Question: {row['question']}\nAnswer:", "answer": row["answer"]} for row in rows]
    write_jsonl(work / "train.jsonl", made[:TRAIN])
    write_jsonl(work / "held-out.jsonl", made[TRAIN:])


def report(result: Json, lines: list[Json], command: list[str]) -> str:
    """The page."""
    rows = []
    for name, words in (("format_reward", "ends with `#### n`"), ("correctness_reward", "correct")):
        found = []
        for part in ("evaluation_before", "evaluation"):
            own = result[part][f"eval_rewards/{name}"]
            whole = wilson(np.repeat([1.0, 0.0], [round(own["mean"] * own["rows"]), own["rows"] - round(own["mean"] * own["rows"])]))
            found.append(f"{whole.mean:.3f} [{whole.low:.3f}, {whole.high:.3f}]")
        rows.append(f"| {words} | {' | '.join(found)} |")
    first, last = lines[0], lines[-1]
    dead = [line["frac_reward_zero_std"] for line in lines]
    correct = sum(line["rewards/correctness_reward/mean"] * 64 for line in lines)
    return "\n".join(
        [
            "# GSM8K with a model of 17 M parameters",
            "",
            describe_processor()["processor"] + ".",
            "",
            f"`finegrain {' '.join(command)}`: {result['answers']} answers in {result['train_seconds']:.0f} s.",
            f"{HELD_OUT} held-out problems, one answer each at temperature 1, Wilson's intervals.",
            "",
            "| share of answers | before | after |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"Groups of eight answers without a difference in reward: {np.mean(dead[:5]):.2f} in the first five buffers, "
            f"{np.mean(dead[-5:]):.2f} in the last five. Correct answers in training: {correct:.0f} of {64 * len(lines)}. "
            f"No leash, so the distance to the start model was not measured. Mean length in tokens: {first['completions/mean_length']:.0f} at "
            f"first, {last['completions/mean_length']:.0f} at last; cut at {TOKENS} tokens: {first['completions/clipped_ratio']:.2f} and "
            f"{last['completions/clipped_ratio']:.2f}.",
            "",
        ]
    )


def main() -> None:
    """One run."""
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "online-gsm8k")
    parser.add_argument("--buffers", type=int, default=36)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    make_data(asked.work)
    out = asked.work / "run"
    options = ["--reward", f"{FUNCTIONS}:format_reward", f"{FUNCTIONS}:correctness_reward", "algorithm:grpo", "--lr", "5e-5", "--prompts", "8"]
    options += ["--sampling.answers", "8", "--sampling.max-new-tokens", str(TOKENS), "--epochs", str(asked.buffers * 8 / TRAIN), "--save-every", "5"]
    options += ["--eval-temperature", "1", "--device", "cpu"]
    data = ["--model", str(SMALL_LM), "--data", str(asked.work / "train.jsonl"), "--eval", str(asked.work / "held-out.jsonl"), "--out", str(out)]
    done = asked.work / "result.json"
    if not done.exists():
        done.write_text(json.dumps(finegrain("online", *data, *options, *(["--resume"] if out.exists() else []))))
    result = json.loads(done.read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "buffer" in line]
    command = ["online", *[Path(word).name if "/" in word else word for word in [*data, *options]]]
    write(asked.out, "online-gsm8k", {"result": result, "lines": lines}, report(result, lines, command))


if __name__ == "__main__":
    main()
