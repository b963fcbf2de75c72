"""MPO against DPO on all pairs, DPO on the easy ones, and RL from the start model, on pairs whose labels are wrong where answers are nearly equal.

    python benchmarks/mpo.py [--quick] [--work build/mpo] [--out benchmarks/results]

A model of 16 words, 500 pairs of random answers labelled by a coin that falls by their difference in true reward. All arms share one reward model,
trained on the pairs; all online arms take the same number of updates of the same size, all offline ones pass over their pairs to the same number
of steps. The control splits the pairs at random instead of by margin: if it does as well as MPO, the split is worth nothing. Each arm has two
learning rates for the offline part, tuned on a seed that is not reported. Finished runs are kept, so that a stopped script goes on.
Writes mpo.{json,md}.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from places import describe_processor
from tables import shown
from toy_recipes import TOKENS, run_script, save_start, true_reward, write_noisy_pairs

import finegrain
from finegrain.catalog import load
from finegrain.commands.iterate import IterateSettings
from finegrain.commands.online import OnlineTraining
from finegrain.commands.settings import Common, Training
from finegrain.generate.sampling import Sampling
from finegrain.online.leash import InReward
from finegrain.ops.stats import mean_interval
from finegrain.recipes.iterate import run_iterate
from finegrain.rounds.mpo import Mpo
from finegrain.runs import read_record

PAIRS, SCALE, BUFFERS, STEPS, BETA = 500, 4.0, 30, 60, 0.02
RATES = (3e-4, 1e-3)
ONLINE_RATE = 3e-3
ARMS = ("start", "dpo on all", "dpo on easy", "rl from the start", "mpo", "mpo, random split")


def begun(out: Path) -> bool:
    """Whether a run is to go on."""
    return (out / "run.json").exists()


class World:
    """One seed: a start model, pairs, a reward and their split."""

    def __init__(self, work: Path, seed: int, quick: bool) -> None:
        self.work, self.seed, self.buffers = work / f"seed-{seed}", seed, 4 if quick else BUFFERS
        self.work.mkdir(parents=True, exist_ok=True)
        self.start = save_start(self.work / "start", seed)
        self.pairs = write_noisy_pairs(self.work / "pairs.jsonl", seed, 60 if quick else PAIRS, SCALE)
        self.steps = 8 if quick else STEPS
        self.split = self._prepare()

    def _prepare(self) -> Path:
        """Reward and split, by the recipe's own stages; its DPO and PPO are run below, at several rates."""
        out = self.work / "recipe"
        if not (out / "run.json").exists() or read_record(out).status != "finished":
            further = self.work / "stages.json"
            online = {"training": {"prompts": 2, "samples": 0, "holdout": 0.0}, "common": {"max_steps": 1}}
            further.write_text(json.dumps({"online": online, "prefer": {"common": {"max_steps": 1}}, "reward": {"training": {"epochs": 3.0}}}))
            common = Common(seed=self.seed, device="cpu", max_length=64, resume=(out / "run.json").exists())
            training = Training(samples=0, examined=0, holdout=0.0)
            rounds = Mpo(max_new_tokens=TOKENS, stages=str(further), reward_lr=3e-3, votes="linear")
            run_iterate(IterateSettings(model=str(self.start), data=str(self.pairs), out=out, rounds=rounds, common=common, training=training))
        return out / "split"

    def part(self, name: str) -> Path:
        """The pairs of a set; `random easy` and `random hard` have as many, drawn at random."""
        if name in ("easy", "hard"):
            return self.split / f"rows.{name}.jsonl"
        lines, file = self.pairs.read_text().splitlines(keepends=True), self.work / f"{name.replace(' ', '-')}.jsonl"
        counts = [len((self.split / f"rows.{one}.jsonl").read_text().splitlines()) for one in ("easy", "hard")]
        order = np.random.default_rng([self.seed, 5]).permutation(len(lines))
        places = order[: counts[0]] if name == "random easy" else order[counts[0] : sum(counts)]
        file.write_text("".join(lines[place] for place in sorted(places)))
        return file

    def dpo(self, name: str, data: Path, rate: float) -> Path:
        """The run, once."""
        out = self.work / f"{name}-{rate:g}"
        if not (out / "run.json").exists() or read_record(out).status != "finished":
            epochs = max(1.0, 16 * self.steps / max(1, len(data.read_text().splitlines())))
            common = Common(lr=rate, seed=self.seed, device="cpu", max_length=64, max_steps=self.steps, resume=(out / "run.json").exists())
            training = Training(samples=0, examined=0, holdout=0.0, epochs=epochs)
            finegrain.prefer(str(self.start), str(data), out, objective=load("objective", "dpo")(), common=common, training=training)
        return out

    def ppo(self, name: str, start: Path, data: Path) -> Path:
        """The run, once."""
        out = self.work / name
        if not (out / "run.json").exists() or read_record(out).status != "finished":
            count = len({json.loads(line)["prompt"] for line in data.read_text().splitlines()})
            finegrain.train_online(
                str(start), str(data), out, reward=str(self.work / "recipe" / "reward"), algorithm=load("algorithm", "ppo")(),
                leash=InReward(beta=BETA), sampling=Sampling(answers=8, max_new_tokens=TOKENS),
                common=Common(lr=ONLINE_RATE, seed=self.seed, device="cpu", max_length=64, max_steps=4 * self.buffers, resume=begun(out)),
                training=OnlineTraining(prompts=8, samples=0, holdout=0.0, epochs=max(1.0, 8 * self.buffers / count)),
            )  # fmt: skip
        return out

    def arm(self, name: str, rate: float) -> float:
        """The true reward of an arm's model."""
        if name == "start":
            return true_reward(self.start)
        if name == "dpo on all":
            return true_reward(self.dpo("all", self.pairs, rate))
        if name == "rl from the start":
            return true_reward(self.ppo("rl", self.start, self.pairs))
        sides = ("random easy", "random hard") if "random" in name else ("easy", "hard")
        first = self.dpo(sides[0].replace(" ", "-"), self.part(sides[0]), rate)
        if name == "dpo on easy":
            return true_reward(first)
        return true_reward(self.ppo(f"{name.replace(', ', '-').replace(' ', '-')}-{rate:g}", first, self.part(sides[1])))


def measure(work: Path, seeds: range, quick: bool) -> dict[str, Any]:
    """Every arm at its best rate, and what the split was."""
    tuning, found = World(work, 11, quick), {}
    rates = {name: max(RATES, key=lambda rate, name=name: tuning.arm(name, rate)) for name in ARMS}
    worlds = [World(work, seed, quick) for seed in seeds]
    for name in ARMS:
        found[name] = [world.arm(name, rates[name]) for world in worlds]
    splits = [read_record(world.split).as_json()["result"] for world in worlds]
    return {
        "rewards": found,
        "rates": rates,
        "splits": [{name: one[name] for name in ("sets", "threshold", "correlation_with_length")} for one in splits],
    }


def report(found: dict[str, Any]) -> str:
    """The page."""
    rewards, rates, seeds = found["rewards"], found["rates"], len(found["splits"])
    lines = [
        "# MPO and what it is made of", "",
        f"{describe_processor()['processor']}. True reward (-1 to 1, mean value of an answer's words) of 512 answers; "
        f"{PAIRS} pairs labelled with probability sigma({SCALE:g} x difference); DPO {STEPS} steps, PPO {4 * BUFFERS} updates at {ONLINE_RATE:g}; "
        f"means ± half of a 95 % interval over {seeds} seeds. Offline rates of "
        f"{', '.join(f'{rate:g}' for rate in RATES)} tuned on one other seed.", "",
        "| arm | offline rate | true reward | less mpo, paired |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, values in rewards.items():
        less = mean_interval([one - other for one, other in zip(values, rewards["mpo"], strict=True)])
        lines.append(f"| {name} | {rates[name]:g} | {shown(mean_interval(values))} | {shown(less)} |")
    sets = "; ".join(f"{one['sets']['easy']} easy, {one['sets']['hard']} hard, {one['sets']['contradicted']} contradicted" for one in found["splits"])
    return "\n".join([*lines, "", f"Pairs by seed: {sets}.", ""])


if __name__ == "__main__":
    run_script(__doc__, "mpo", measure, report, "two seeds, 60 pairs and few steps")
