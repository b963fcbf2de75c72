"""SALSA against PPO: the true reward at equal distance from the start model.

    python benchmarks/salsa.py [--quick] [--work build/salsa] [--out benchmarks/results]

A model of 16 words is fine-tuned twice on demonstrations of middling quality, with other seeds; PPO starts from the first result. Arms: leashed to it
(PPO), to the mean of the two (SALSA), and, as the control, to the mean of the first and a model at the same distance in a random direction: if
that does as well, the second fine-tuning is worth nothing. Every arm has the same three betas. Compared is the mean reward of the sampled buffers
at given KL to the start model, read off each run's path; of the betas the best at that KL counts, chosen on a seed that is not reported.
Finished runs are kept, so that a stopped script goes on. Writes salsa.{json,md}.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from places import ROOT, describe_processor
from tables import shown
from toy_recipes import TOKENS, draw_prompts, run_script, save_start
from toy_rewards import LETTERS, VALUES
from transformers import AutoModelForCausalLM, AutoTokenizer

import finegrain
from finegrain.catalog import load
from finegrain.commands.online import OnlineTraining
from finegrain.commands.settings import Common, Training
from finegrain.data.planted import write_jsonl
from finegrain.generate.sampling import Sampling
from finegrain.online.leash import InReward
from finegrain.online.references import ModelSoup, StartModel
from finegrain.ops.stats import mean_interval
from finegrain.runs import read_record

REWARD = f"{ROOT / 'benchmarks' / 'toy_rewards.py'}:mean_value"
BETAS = (0.01, 0.03, 0.1)
LEVELS = (0.05, 0.1, 0.2)
"""KL to the start model, nats per token."""
BUFFERS, RATE = 60, 3e-3
ARMS = ("ppo", "salsa", "random direction")


def is_done(out: Path) -> bool:
    """Whether a run is finished."""
    return (out / "run.json").exists() and read_record(out).status == "finished"


def tuned(work: Path, seed: int, number: int, steps: int) -> Path:
    """One of the two fine-tuned models: the better words are somewhat likelier in their demonstrations."""
    start, out = save_start(work / f"start-{seed}", seed), work / f"sft-{seed}-{number}"
    if not is_done(out):
        rng, data = np.random.default_rng([seed, number]), work / f"demonstrations-{seed}-{number}.jsonl"
        chance = np.exp([VALUES[letter] for letter in LETTERS])
        texts = [" ".join(rng.choice(list(LETTERS), TOKENS, p=chance / chance.sum())) for _ in range(16 * steps)]
        write_jsonl(
            data, [{"prompt": f"{prompt} ", "completion": text} for prompt, text in zip(draw_prompts(seed + number, len(texts)), texts, strict=True)]
        )
        common = Common(lr=3e-3, seed=seed + number, device="cpu", max_length=64, resume=(out / "run.json").exists())
        finegrain.sft(str(start), str(data), out, common=common, training=Training(samples=0, examined=0, holdout=0.0))
    return out


def moved(work: Path, seed: int, steps: int) -> Path:
    """The first model, moved in a random direction by the distance of the second."""
    out, one, other = work / f"random-{seed}", tuned(work, seed, 1, steps), tuned(work, seed, 2, steps)
    if not (out / "config.json").exists():
        model, second = (AutoModelForCausalLM.from_pretrained(folder) for folder in (one, other))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for own, far in zip(model.parameters(), second.parameters(), strict=True):
                step = torch.randn(own.shape, generator=generator)
                own.add_(step * ((far - own).norm() / step.norm()))
        AutoTokenizer.from_pretrained(one).save_pretrained(out)
        model.save_pretrained(out)
    return out


def path_of(work: Path, seed: int, arm: str, beta: float, quick: bool) -> list[tuple[float, float]]:
    """(KL to the start model, mean true reward) of every buffer."""
    steps, buffers = (4, 4) if quick else (60, BUFFERS)
    start, out = tuned(work, seed, 1, steps), work / f"{arm.replace(' ', '-')}-{seed}-{beta:g}"
    if not is_done(out):
        data = work / f"prompts-{seed}.jsonl"
        if not data.exists():
            write_jsonl(data, [{"prompt": f"{prompt} "} for prompt in draw_prompts(seed, 8)])
        other = None if arm == "ppo" else tuned(work, seed, 2, steps) if arm == "salsa" else moved(work, seed, steps)
        finegrain.train_online(
            str(start),
            str(data),
            out,
            reward=REWARD,
            algorithm=load("algorithm", "ppo")(),
            leash=InReward(beta=beta),
            reference=StartModel() if other is None else ModelSoup(paths=(str(other),)),
            sampling=Sampling(answers=8, max_new_tokens=TOKENS),
            common=Common(lr=RATE, seed=seed, device="cpu", max_length=64, resume=(out / "run.json").exists()),
            training=OnlineTraining(prompts=8, samples=0, holdout=0.0, epochs=float(buffers)),
        )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["kl/start" if arm != "ppo" else "kl"], line["reward"]) for line in lines if "buffer" in line]


def reward_at(path: list[tuple[float, float]], level: float) -> float:
    """The best mean reward of three buffers in a row whose mean KL is at most the level."""
    array = np.array(path)
    smooth = np.stack([array[place : place + 3].mean(0) for place in range(len(array) - 2)])
    within = smooth[smooth[:, 0] <= level]
    return float(within[:, 1].max()) if len(within) else float(array[0, 1])


def measure(work: Path, seeds: range, quick: bool) -> dict[str, Any]:
    """By arm and level, the reward of each seed at the beta that was best on the tuning seed."""
    found: dict[str, Any] = {}
    for arm in ARMS:
        tried = {beta: path_of(work, 11, arm, beta, quick) for beta in BETAS}
        found[arm] = {}
        for level in LEVELS:
            beta = max(BETAS, key=lambda beta, level=level, tried=tried: reward_at(tried[beta], level))
            rewards = [reward_at(path_of(work, seed, arm, beta, quick), level) for seed in seeds]
            found[arm][f"{level:g}"] = {"beta": beta, "rewards": rewards}
    return found


def report(found: dict[str, Any]) -> str:
    """The page."""
    count = len(found["ppo"][f"{LEVELS[0]:g}"]["rewards"])
    lines = [
        "# SALSA at equal KL to the start model",
        "",
        f"{describe_processor()['processor']}. Best mean true reward of three buffers in a row within a KL to the start model; {BUFFERS} buffers of",
        f"64 answers, rate {RATE:g}, betas {', '.join(f'{beta:g}' for beta in BETAS)}; means ± half of a 95 % interval over {count} seeds.",
        "",
        "| KL, nats per token | arm | beta | true reward | less PPO, paired |",
        "| --- | --- | --- | --- | --- |",
    ]
    for level in (f"{one:g}" for one in LEVELS):
        for arm in ARMS:
            own, ppo = found[arm][level], found["ppo"][level]["rewards"]
            less = mean_interval([one - other for one, other in zip(own["rewards"], ppo, strict=True)])
            lines.append(f"| {level} | {arm} | {own['beta']:g} | {shown(mean_interval(own['rewards']))} | {shown(less)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    run_script(__doc__, "salsa", measure, report, "two seeds and four buffers")
