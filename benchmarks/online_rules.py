"""A chat model on three checkable rules of form: share of rules kept before and after online RL, with dense reward and with terminal reward.

    python benchmarks/online_rules.py --model SMOLLM2 [--work build/online-rules] [--buffers 30]

A prompt asks for so many sentences about a topic, without commas, with a given phrase at the end; code checks the rules. Dense reward lies on the
characters that break a rule, terminal reward is the share kept. Both arms: reinforce-pp, LoRA, the same rate, prompts and noise; held-out topics are
answered greedily before and after. SMOLLM2 is the folder that ../shared/models/smollm2.py makes. Minutes per buffer on a slow pair of cores: the
number of buffers says how long it takes; a stopped script goes on. Writes benchmarks/results/online-rules.{json,md}.
"""

import json
from pathlib import Path

import numpy as np
from command import flags, write
from places import RESULTS, ROOT, describe_processor
from reward_methods import finegrain

from finegrain.data.planted import write_jsonl
from finegrain.types import Json

FUNCTIONS = ROOT / "benchmarks" / "rule_rewards.py"
ARMS = {"dense": "rules_broken", "terminal": "rules_kept"}
PHRASES = ("That is all.", "Thank you for reading.", "The end.")
TOPICS = (
    "rivers, mountains, bread, bicycles, the moon, winter, libraries, coffee, trains, gardens, dogs, cats, bees, the sea, music, painting, "
    "football, chess, schools, markets, rain, bridges, clocks, letters, maps, lighthouses, tea, apples, horses, birds, islands, "
    "deserts, forests, snow, stars, fire, "
    "glass, paper, salt, sugar, milk, cheese, honey, wool, silk, gold, iron, wood, stone, sand, wind, thunder, spring, summer, autumn, dreams, "
    "sleep, travel, cooking, dancing, running, swimming, reading, writing"
).split(", ")


def make_data(work: Path) -> None:
    """Prompts of one user turn; no topic is in both files."""
    rows = [
        {
            "prompt": [
                {
                    "role": "user",
                    "content": f"Write exactly {count} sentences about {topic}. Do not use any commas. End with the phrase: {phrase}",
                }
            ],
            "sentence_count": count,
            "phrase": phrase,
            "topic": topic,
        }
        for place, topic in enumerate(TOPICS)
        for count in (2, 3)
        for phrase in (PHRASES[(place + count) % len(PHRASES)],)
    ]
    held = set(TOPICS[::4])
    write_jsonl(work / "train.jsonl", [row for row in rows if row["topic"] not in held])
    write_jsonl(work / "held-out.jsonl", [row for row in rows if row["topic"] in held])


def train(work: Path, model: str, arm: str, buffers: int) -> tuple[Json, list[Json]]:
    """One arm: the command's result and the line of every buffer."""
    out, done = work / arm, work / f"{arm}.json"
    command = ["--model", model, "--data", str(work / "train.jsonl"), "--eval", str(work / "held-out.jsonl"), "--out", str(out)]
    command += [
        "--reward",
        f"{FUNCTIONS}:{ARMS[arm]}",
        "--gold",
        f"{FUNCTIONS}:rules_kept",
        "algorithm:reinforce-pp",
        "--lora.rank",
        "16",
        "--lr",
        "2e-4",
    ]
    command += ["--prompts", "8", "--sampling.answers", "4", "--sampling.max-new-tokens", "64", "--max-length", "192", "--device", "cpu"]
    command += ["--epochs", str(buffers * 8 / 96), "--save-every", "2"]
    if not done.exists():
        done.write_text(json.dumps(finegrain("online", *command, *(["--resume"] if out.exists() else []))))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return json.loads(done.read_text()), [line for line in lines if "buffer" in line]


def report(found: dict[str, tuple[Json, list[Json]]], buffers: int) -> str:
    """The page."""
    rows, samples = [], []
    for arm, (result, lines) in found.items():
        numbers = []
        for part in ("evaluation_before", "evaluation"):
            own = result[part]["eval_gold/rules_kept"]
            numbers.append(f"{own['mean']:.3f} [{own['low']:.3f}, {own['high']:.3f}]")
        gold = [line["gold/rules_kept/mean"] for line in lines]
        numbers += [f"{np.mean(gold[:3]):.3f}, {np.mean(gold[-3:]):.3f}", f"{lines[-1]['kl']:.4f}", f"{result['train_seconds'] / 60:.0f}"]
        rows.append(f"| {arm} | {' | '.join(numbers)} |")
        kept = [json.loads(line) for line in (Path(result["out"]) / "samples.jsonl").read_text().splitlines()]
        samples += [
            f"- {arm}: {sample['prompt'].splitlines()[-1][-160:]!r}: before {sample['before'][:220]!r}, after {sample['after'][:220]!r}"
            for sample in kept[:2]
        ]
    return "\n".join(
        [
            "# Three rules of form, a chat model of 135 M parameters",
            "",
            describe_processor()["processor"] + ".",
            "",
            f"{buffers} buffers of 8 prompts with 4 answers of at most 64 tokens, reinforce-pp, LoRA of rank 16, learning rate 0.0002, one seed.",
            "Share of the three rules kept: by greedy answers to 32 held-out prompts with intervals over prompts, and by sampled answers in the "
            "first and last three buffers.",
            "",
            "| reward | before | after | sampled, first and last | KL to the start, nats per token | minutes |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "## Answers",
            "",
            *samples,
            "",
        ]
    )


def main() -> None:
    """Both arms."""
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "online-rules")
    parser.add_argument("--buffers", type=int, default=30)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    make_data(asked.work)
    found = {arm: train(asked.work, asked.model, arm, asked.buffers) for arm in ARMS}
    write(
        asked.out, "online-rules", {arm: {"result": result, "lines": lines} for arm, (result, lines) in found.items()}, report(found, asked.buffers)
    )


if __name__ == "__main__":
    main()
