"""Contrastive rewards in online training: do they help a value model where the reward differs from prompt to prompt, and nothing under group means?

    python benchmarks/contrastive_online.py [--quick] [--work build/contrastive-online]

A model of 16 words answers 64 prompts with 16 tokens; the reward is the share of one word plus a fixed standard normal number of the prompt, many
times what answers to one prompt differ by at the start. The baseline of a prompt is the mean of k = 5 answers of the start model. With PPO
(value head on the policy): the plain reward; contrastive; the control, whose baselines belong to other prompts (a shuffled table, so that "any table
helps" is seen); and the reward without offsets, a bound. With RLOO, whose baseline is that of the group: plain and contrastive, which must be the
same run. Every arm has the same two learning rates, tried on a seed that is not reported. Compared is the share itself, which none of the
arms with offsets is shown alone: its mean over all buffers, which is the larger the earlier it rises, and over the last five.

Writes benchmarks/results/contrastive-online.{json,md}. Runs that are done stay done: a stopped script goes on.
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

from finegrain.catalog import load
from finegrain.commands.baseline import BaselineSettings
from finegrain.data.planted import write_jsonl
from finegrain.online.leash import InReward
from finegrain.ops.stats import mean_interval
from finegrain.recipes.score_files.baseline_scores import run_baseline

REWARDS = ROOT / "benchmarks" / "toy_rewards.py"
OFFSETS, SHARE = f"{REWARDS}:share_with_offsets", f"{REWARDS}:share_of_h"
RATES = (3e-3, 1e-2)
PASSES = {"ppo": {"epochs": 2}, "rloo": {}}
"""Over a buffer."""
PROMPTS, PER_BUFFER, ANSWERS, TOKENS, BASELINE_ANSWERS, BETA = 64, 8, 8, 16, 5, 0.01
ARMS = {
    "ppo, plain": ("ppo", OFFSETS, ""),
    "ppo, contrastive": ("ppo", OFFSETS, "own"),
    "ppo, baselines of other prompts": ("ppo", OFFSETS, "shuffled"),
    "ppo, reward without offsets (bound)": ("ppo", SHARE, ""),
    "rloo, plain": ("rloo", OFFSETS, ""),
    "rloo, contrastive": ("rloo", OFFSETS, "own"),
}


def make_table(work: Path, seed: int, kind: str) -> Path:
    """Scores of the start model's own answers, sampled as in training; `shuffled`: each prompt has another one's."""
    table = work / f"baseline-{kind}-{seed}.jsonl"
    if table.exists():
        return table
    model, tokenizer = make_model(seed)
    torch.manual_seed(1000 + seed)
    rows = []
    for line in make_prompts(work, PROMPTS).read_text().splitlines():
        prompt = json.loads(line)["prompt"]
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        drawn = model.generate(
            ids, do_sample=True, top_k=0, max_new_tokens=TOKENS, num_return_sequences=BASELINE_ANSWERS, pad_token_id=0, use_cache=True
        )
        rows.append({"prompt": prompt, "responses": tokenizer.batch_decode(drawn[:, ids.shape[1] :])})
    own = work / f"baseline-own-{seed}.jsonl"
    if not own.exists():
        samples = work / f"samples-{seed}.jsonl"
        write_jsonl(samples, rows)
        run_baseline(BaselineSettings(reward=OFFSETS, data=str(samples), out=own))
    if kind == "shuffled":
        head, *lines = own.read_text().splitlines()
        prompts = [json.loads(line) for line in lines]
        moved = [{**one, "prompt": other["prompt"]} for one, other in zip(prompts, prompts[1:] + prompts[:1], strict=True)]
        table.write_text("\n".join([head, *map(json.dumps, moved)]) + "\n")
    return table


def run(work: Path, arm: str, seed: int, rate: float, buffers: int) -> list[dict[str, float]]:
    """The line of every buffer."""
    algorithm, reward, kind = ARMS[arm]
    name = f"{arm.replace(', ', '-').replace(' ', '-').replace('(', '').replace(')', '')}-{rate:g}-{buffers}-{seed}"
    done = work / f"{name}.json"
    if done.exists():
        return json.loads(done.read_text())  # type: ignore[no-any-return]
    lines = train_toy(
        work,
        name,
        make_prompts(work, PROMPTS),
        seed=seed,
        rate=rate,
        tokens=TOKENS,
        buffers=buffers * PER_BUFFER / PROMPTS,
        per_buffer=PER_BUFFER,
        answers=ANSWERS,
        reward=reward,
        gold=(SHARE,),
        baseline=(make_table(work, seed, kind),) if kind else (),
        algorithm=load("algorithm", algorithm)(**PASSES[algorithm]),
        leash=InReward(beta=BETA),
    )
    kept = ("gold/share_of_h/mean", "advantage/std", "value/explained_variance", "contrast/share_with_offsets/above", "kl")
    found = [{key: line[key] for key in kept if key in line} for line in lines if "buffer" in line]
    done.write_text(json.dumps(found))
    return found


def measure(lines: list[dict[str, float]]) -> dict[str, float]:
    """Of one run."""
    shares = [line["gold/share_of_h/mean"] for line in lines]
    found = {
        "all": float(np.mean(shares)),
        "end": float(np.mean(shares[-5:])),
        "advantage": float(np.mean([line["advantage/std"] for line in lines])),
    }
    explained = [line["value/explained_variance"] for line in lines if "value/explained_variance" in line]
    return found | ({"explained": float(np.mean(explained))} if explained else {})


def report(found: dict[str, Any], buffers: int) -> str:
    """The page."""
    lines = [
        "# Contrastive rewards online", "", describe_processor()["processor"] + ".", "",
        f"{buffers} buffers of {PER_BUFFER * ANSWERS} answers; mean ± 95 % interval over {len(found['seeds'])} seeds; learning rates of "
        f"{', '.join(f'{rate:g}' for rate in RATES)} tried on another seed; differences are paired by seed.", "",
        "| arm | rate | share, all buffers | share, last five | advantage's std | explained variance of returns | share, all, less plain |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for arm in ARMS:
        own, plain = found["arms"][arm], found["arms"][f"{arm.partition(',')[0]}, plain"]
        values = {name: [one[name] for one in own["runs"]] for name in own["runs"][0]}
        columns = [shown(mean_interval(values[name])) if name in values else "" for name in ("all", "end", "advantage", "explained")]
        difference = [one["all"] - other["all"] for one, other in zip(own["runs"], plain["runs"], strict=True)]
        last = "" if own is plain else shown(mean_interval(difference))
        lines.append(f"| {arm} | {own['rate']:g} | {' | '.join(columns)} | {last} |")
    lines += ["", f"Largest difference between the shares of the two rloo arms in any buffer, at the same rate: {found['rloo_difference']:.2g}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--quick", action="store_true", help="two seeds, few buffers, one rate")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "contrastive-online")
    asked = parser.parse_args()
    (asked.work / "runs").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    buffers, seeds, rates, tuning = (8, (1, 2), RATES[:1], (11,)) if asked.quick else (30, (1, 2, 3, 4, 5), RATES, (11,))
    arms: dict[str, Any] = {}
    for arm in ARMS:
        twin = "rloo, plain" if arm == "rloo, contrastive" else arm  # the same run has the same best rate
        trials = {rate: float(np.mean([measure(run(asked.work, twin, seed, rate, buffers))["all"] for seed in tuning])) for rate in rates}
        best = max(trials, key=trials.__getitem__)
        arms[arm] = {"rate": best, "trials": trials, "runs": [measure(run(asked.work, arm, seed, best, buffers)) for seed in seeds]}
    rate = arms["rloo, plain"]["rate"]
    pairs = [[run(asked.work, f"rloo, {kind}", seed, rate, buffers) for kind in ("plain", "contrastive")] for seed in seeds]
    apart = max(abs(a["gold/share_of_h/mean"] - b["gold/share_of_h/mean"]) for one, other in pairs for a, b in zip(one, other, strict=True))
    found = {"seeds": seeds, "buffers": buffers, "arms": arms, "rloo_difference": apart}
    if asked.quick:
        print(report(found, buffers))
    else:
        write(asked.out, "contrastive-online", found, report(found, buffers))


if __name__ == "__main__":
    main()
