"""brme's mix of Gaussian heads in online training, against their mean, their minimum and one reward, when the proxy breaks; gold is shown.

    python benchmarks/brme_online.py [--quick] [--work build/brme-online]

A model of 16 words answers with 16 tokens. Two golds: one that turns rises with the share of one word up to 0.4 and falls twice as fast beyond;
one that stays is the share itself, the control in which nothing breaks and no mix is needed. Per seed 400 pairs are answers of mixed shares below
0.4, ordered by gold with 15 % flipped, so that a reward learnt from them cannot know of the turn. Stage 1 is head:sequence on the start model, stage
2 head:gaussian-ensemble with loss:brme on its frozen backbone. GRPO at one learning rate for all (one trial each), the leash at 0.01. Arms: one
reward (stage 1), the mean of five heads, nominal, mix 0.4 per sample and per batch, the least head, and gold itself as a bound. Gold and the
spread of the heads over the run: gold at its best buffer, in the last five, and the fall between; the least spread against the last.

Writes benchmarks/results/brme-online.{json,md}. Runs that are done stay done: a stopped script goes on.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import flags, write
from online_toys import make_model, make_prompts, train_toy
from places import RESULTS, ROOT, describe_processor
from tables import shown
from toy_rewards import LETTERS, share_of_h, share_that_turns

import finegrain
from finegrain.catalog import load
from finegrain.commands.settings import Common, Training
from finegrain.data.planted import write_jsonl
from finegrain.online.leash import InLoss
from finegrain.ops.aggregate import MeanReward, Nominal, NominalMix, OfOneAnswer, PerBatch, PerSample
from finegrain.ops.stats import mean_interval
from finegrain.rewards.brme import BRME
from finegrain.rewards.gaussian_ensemble import GaussianEnsemble
from finegrain.rewards.sequence import Sequence

REWARDS = ROOT / "benchmarks" / "toy_rewards.py"
WORLDS = {"gold turns": share_that_turns, "gold stays": share_of_h}
TOKENS, PAIRS, FLIPPED, RATE, BETA = 16, 400, 0.15, 1e-2, 0.01
ARMS: dict[str, OfOneAnswer | None] = {
    "one reward": None,
    "mean of 5": MeanReward(),
    "nominal": Nominal(),
    "mix 0.4, per sample": NominalMix(share=0.4),
    "mix 0.4, per batch": NominalMix(share=0.4, worst=PerBatch()),
    "least": PerSample(),
    "gold (bound)": None,
}


def make_pairs(file: Path, seed: int) -> Path:
    """Answers with shares of h between 0 and 0.4, where both golds order them alike, some the wrong way round."""
    if file.exists():
        return file
    rng, rows = np.random.default_rng(seed), []
    while len(rows) < PAIRS:
        prompt, texts = " ".join(rng.choice(list(LETTERS), 4)), []
        for _ in range(2):
            share = rng.uniform(0, 0.4)
            texts.append(" ".join("h" if rng.random() < share else rng.choice(list(LETTERS)) for _ in range(TOKENS)))
        gold = share_of_h(texts)
        if gold[0] != gold[1] and max(gold) <= 0.4:
            good, bad = sorted(range(2), key=lambda place: -gold[place])
            good, bad = (bad, good) if rng.random() < FLIPPED else (good, bad)
            rows.append({"prompt": prompt, "chosen": texts[good], "rejected": texts[bad]})
    write_jsonl(file, rows)
    return file


def make_rewards(work: Path, seed: int, steps: int) -> tuple[Path, Path]:
    """Folders of the stage-1 reward and of its Gaussian heads."""
    name = f"{seed}-{steps}"
    pairs, one, heads = make_pairs(work / f"pairs-{seed}.jsonl", seed), work / "rewards" / f"one-{name}", work / "rewards" / f"heads-{name}"
    common = Common(seed=seed, max_length=128, device="cpu", max_steps=steps, lr=3e-3)
    training = Training(epochs=50.0, holdout=0.1, samples=1)
    if not (one / "reward_head.json").exists():
        model, tokenizer = make_model(seed)
        finegrain.train_reward_model(model, pairs, one, head=Sequence(), tokenizer=tokenizer, common=common, training=training)
    if not (heads / "reward_head.json").exists():
        finegrain.train_reward_model(str(one), pairs, heads, head=GaussianEnsemble(), loss=BRME(), frozen=True, common=common, training=training)
    return one, heads


def run(work: Path, world: str, arm: str, seed: int, buffers: int, steps: int) -> list[dict[str, float]]:
    """The line of every buffer; a reward that was learnt is the same under both golds, and runs once."""
    of = world if arm.startswith("gold") else "both"
    name = f"{of}-{arm}-{buffers}-{steps}-{seed}".replace(", ", "-").replace(" ", "-").replace("(", "").replace(")", "")
    done = work / f"{name}.json"
    if done.exists():
        return read_lines(done, world)
    one, heads = make_rewards(work, seed, steps)
    gold = f"{REWARDS}:{WORLDS[world].__name__}"
    aggregate = ARMS[arm]
    lines = train_toy(
        work,
        name,
        make_prompts(work, 16),
        seed=seed,
        rate=RATE,
        tokens=TOKENS,
        buffers=buffers / 2,
        reward=gold if arm.startswith("gold") else str(one if aggregate is None else heads),
        gold=tuple(f"{REWARDS}:{one.__name__}" for one in WORLDS.values()),
        aggregate=MeanReward() if aggregate is None else aggregate,
        algorithm=load("algorithm", "grpo")(),
        leash=InLoss(beta=BETA),
    )
    found = []
    for line in lines:
        if "buffer" in line:
            spread = next((value for key, value in line.items() if key.startswith("spread/")), None)
            golds = {key: line[key] for key in line if key.startswith("gold/")}
            found.append({**golds, "reward": line["reward"], **({} if spread is None else {"spread": spread})})
    done.write_text(json.dumps(found))
    return read_lines(done, world)


def read_lines(file: Path, world: str) -> list[dict[str, float]]:
    """With the gold of this world as `gold`."""
    return [{**line, "gold": line[f"gold/{WORLDS[world].__name__}/mean"]} for line in json.loads(file.read_text())]


def measure(lines: list[dict[str, float]]) -> dict[str, float]:
    """Of one run; the best buffer is the highest mean of five in a row."""
    gold = np.array([line["gold"] for line in lines])
    smooth = np.convolve(gold, np.ones(5) / 5, "valid")
    found = {"best": float(smooth.max()), "end": float(smooth[-1]), "fall": float(smooth.max() - smooth[-1])}
    spread = [line["spread"] for line in lines if "spread" in line]
    return found | ({"grown": float(np.mean(spread[-5:]) / np.mean(spread[:5]))} if spread else {})


def report(found: dict[str, Any]) -> str:
    """The page."""
    lines = ["# Mixes of Gaussian heads online", "", describe_processor()["processor"] + ".", ""]
    for world, arms in found["worlds"].items():
        lines += [
            f"## World: {world}", "",
            f"{found['buffers']} buffers of 64 answers; mean ± 95 % interval over {len(found['seeds'])} seeds; differences are paired by seed.", "",
            "| reward | gold, best five buffers | gold, last five | fall | spread, last by first five | gold, last, less mean of 5 |",
            "| --- | --- | --- | --- | --- | --- |",
        ]  # fmt: skip
        for arm, runs in arms.items():
            values = {name: [one[name] for one in runs] for name in runs[0]}
            cells = [shown(mean_interval(values[name])) if name in values else "" for name in ("best", "end", "fall", "grown")]
            difference = [one["end"] - other["end"] for one, other in zip(runs, arms["mean of 5"], strict=True)]
            lines.append(f"| {arm} | {' | '.join(cells)} | {'' if arm == 'mean of 5' else shown(mean_interval(difference))} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--quick", action="store_true", help="one seed, few buffers")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "brme-online")
    asked = parser.parse_args()
    for folder in ("runs", "rewards"):
        (asked.work / folder).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    buffers, seeds, steps = (6, (1,), 20) if asked.quick else (30, (1, 2, 3, 4, 5), 200)
    worlds = {world: {arm: [measure(run(asked.work, world, arm, seed, buffers, steps)) for seed in seeds] for arm in ARMS} for world in WORLDS}
    found = {"seeds": seeds, "buffers": buffers, "worlds": worlds}
    if asked.quick:
        print(report(found))
    else:
        write(asked.out, "brme-online", found, report(found))


if __name__ == "__main__":
    main()
