"""Direct RLHF from a base model against fine-tuning and fine-tuning with RLHF: what is kept, what is earned, what is rude.

    python benchmarks/mistral_plus.py [--quick] [--work build/mistral-plus] [--out benchmarks/results]

A model of 16 words is pretrained on two skills: A, runs of the letters a to h in their order, which nothing of the dialogue asks for; and B,
dialogues "o PROMPT p ANSWER o" whose answers have the good word i, the rude word n and others alike. Pairs prefer answers with more i
and without n. The recipe `rounds:mistral-plus` then runs each path on the same pairs and prompts, with the same number of updates. Axes: nats
per token on fresh texts of A, the reward of the model trained on the pairs, the share of answers with n.
The control beside the two of the recipe: direct training without a leash (beta 0), which says what
the leash to the base is worth. Finished stages are kept, so that a stopped script goes on. Writes mistral-plus.{json,md}.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from online_toys import make_model
from places import describe_processor
from tables import shown
from toy_recipes import run_script

from finegrain.commands.iterate import IterateSettings
from finegrain.commands.settings import Common, Training
from finegrain.data.planted import write_jsonl
from finegrain.ops.stats import mean_interval
from finegrain.recipes.iterate import run_iterate
from finegrain.rounds.mistral_plus import MistralPlus
from finegrain.runs import read_record

RATES = (1e-3, 3e-3)
TOKENS = 8
ARMS = {"direct": ("direct", 0.05), "sft": ("sft", 0.05), "sft, then ppo": ("sft-online", 0.05), "direct, no leash": ("direct", 0.0)}


def skill_a(rng: np.random.Generator) -> str:
    """A run of a to h, from anywhere, twelve letters long."""
    first = int(rng.integers(8))
    return " ".join("abcdefgh"[(first + place) % 8] for place in range(12))


def skill_b(rng: np.random.Generator) -> tuple[str, str]:
    """(prompt, answer)."""
    return " ".join(rng.choice(list("jkl"), 3)), " ".join(rng.choice(list("ijklmn"), TOKENS - 2))


def pretrain(folder: Path, seed: int, steps: int) -> Path:
    """The base model, made once."""
    if (folder / "config.json").exists():
        return folder
    model, tokenizer = make_model(seed)
    rng, optimiser = np.random.default_rng([seed, 1]), torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        texts = [skill_a(rng) if place % 2 else "o {} p {} o".format(*skill_b(rng)) for place in range(32)]
        ids = torch.tensor([tokenizer(text)["input_ids"][:12] for text in texts])
        loss = model(ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def goodness(answer: str) -> float:
    """The share of i less that of n."""
    words = answer.split()
    return (words.count("i") - 2 * words.count("n")) / len(words)


def write_data(folder: Path, seed: int, count: int) -> Path:
    """Pairs, texts of A that the model has not seen as such, and the list of rude words."""
    rng, rows = np.random.default_rng([seed, 2]), []
    while len(rows) < count:
        prompt, one = skill_b(rng)
        other = skill_b(rng)[1]
        if goodness(one) != goodness(other):
            chosen, rejected = sorted((one, other), key=goodness, reverse=True)
            rows.append({"prompt": f"{prompt} {rng.choice(list('jkl'))}", "chosen": f"{chosen} o", "rejected": f"{rejected} o"})
    write_jsonl(folder / "pairs.jsonl", rows)
    (folder / "texts.txt").write_text("".join(skill_a(rng) + "\n" for _ in range(64)))
    (folder / "words.txt").write_text("n\n")
    return folder / "pairs.jsonl"


def run(work: Path, seed: int, arm: str, rate: float, quick: bool) -> dict[str, dict[str, float]]:
    """The axes before and after."""
    path, beta = ARMS[arm]
    folder, steps = work / f"seed-{seed}", 8 if quick else 120
    folder.mkdir(parents=True, exist_ok=True)
    base = pretrain(folder / "base", seed, 30 if quick else 600)
    data = folder / "pairs.jsonl" if (folder / "pairs.jsonl").exists() else write_data(folder, seed, 60 if quick else 400)
    out = folder / f"{arm.replace(', ', '-').replace(' ', '-')}-{rate:g}"
    if not (out / "run.json").exists() or read_record(out).status != "finished":
        further = folder / "stages.json"
        online = {"training": {"prompts": 8, "samples": 0, "holdout": 0.0, "epochs": 40.0}, "common": {"max_steps": steps}}
        offline = {"training": {"epochs": 40.0}, "common": {"max_steps": steps}}
        further.write_text(json.dumps({"online": online, "sft": offline, "reward": offline}))
        rounds = MistralPlus(
            path=path,  # type: ignore[arg-type]
            template="o {prompt} p",
            stop=("o",),
            beta=beta,
            retention=str(folder / "texts.txt"),
            words=str(folder / "words.txt"),
            held_out=0.2,
            max_new_tokens=TOKENS,
            stages=str(further),
            reward_lr=3e-3,
            sft_lr=rate,
        )
        common = Common(lr=rate, seed=seed, device="cpu", max_length=32, resume=(out / "run.json").exists())
        training = Training(samples=0, examined=0, holdout=0.0)
        run_iterate(IterateSettings(model=str(base), data=str(data), out=out, rounds=rounds, common=common, training=training))
    stages = {line["stage"]: line["result"] for line in read_record(out).as_json()["stages"] if line["command"] == "axes"}
    return {when: {name: stages[when][name]["mean"] for name in ("retention", "reward", "bad_words", "cut")} for when in ("before", "after")}


def measure(work: Path, seeds: range, quick: bool) -> dict[str, Any]:
    """Every arm at the rate with which it earned the most on the tuning seed."""
    found = {}
    for arm in ARMS:
        rate = max(RATES, key=lambda rate, arm=arm: run(work, 11, arm, rate, quick)["after"]["reward"])
        found[arm] = {"rate": rate, "runs": [run(work, seed, arm, rate, quick) for seed in seeds]}
    return found


def report(found: dict[str, Any]) -> str:
    """The page."""
    count = len(found["direct"]["runs"])
    lines = [
        "# Three axes of direct RLHF and its controls",
        "",
        f"{describe_processor()['processor']}. Change from the base; retention: nats per token on texts of skill A (more is worse); reward:",
        f"that of the model trained on the pairs; rude: share of greedy answers with the word n. Means ± half of a 95 % interval over {count}",
        f"seeds; rates of {', '.join(f'{rate:g}' for rate in RATES)} tuned by reward on one other seed.",
        "",
        "| arm | rate | nats lost on skill A | reward gained | rude answers, change | answers cut, after |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm, own in found.items():
        change = {name: [one["after"][name] - one["before"][name] for one in own["runs"]] for name in ("retention", "reward", "bad_words")}
        cells = " | ".join(shown(mean_interval(values)) for values in change.values())
        lines.append(f"| {arm} | {own['rate']:g} | {cells} | {np.mean([one['after']['cut'] for one in own['runs']]):.2f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    run_script(__doc__, "mistral-plus", measure, report, "two seeds and few steps")
