"""Does a sampler's mean score as baseline make policy gradients steadier, and the policy better? A bandit under a reward that flips and is shifted.

A demonstration [OURS]: 50 prompts with 6 answers each, true reward 0 or 1, a reward model that flips it with
prompt-dependent rates c0, c1 in U(0, 0.4) and adds an offset per prompt; REINFORCE without a value network;
offsets N(0, 1), start logits N(0, 1), one answer per prompt and step (four where a group is centred), 200 steps. Two worlds: `fresh`,
where every call of the reward draws its flips anew, and `fixed`, where an answer keeps its own, as a deterministic reward model would.
Every row has the learning rate that is best for it on seeds of its own. Rows without the sampler's baseline include the mean of the
step's rewards, which costs nothing.

    python benchmarks/contrastive_rewards.py    writes benchmarks/results/contrastive-rewards.json and .md, a minute on one core
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from command import flags, write
from places import RESULTS
from tables import markdown, summary
from torch import Tensor

from finegrain.ops.baseline import AboveOnly, BaselineStd, Contrast, Difference, Max

SEEDS, TUNING, PROMPTS, ANSWERS, SAMPLES, STEPS, GROUP, DRAWS = 20, 20, 50, 6, 5, 200, 4, 400
RATES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
WORLDS = ("fresh", "fixed")
Transform = Callable[[Tensor], Tensor]
"""Rewards (S, P, G) of a step to what multiplies the gradient."""


class Row(NamedTuple):
    """One way to use the reward."""

    contrast: Contrast | None
    then: Transform
    group: int = 1


def same(rewards: Tensor) -> Tensor:
    """The rewards."""
    return rewards


def less_step_mean(rewards: Tensor) -> Tensor:
    """Less the mean over the step's prompts."""
    return rewards - rewards.mean((1, 2), keepdim=True)


def less_group_mean(rewards: Tensor) -> Tensor:
    """Less the mean over the answers to the prompt."""
    return rewards - rewards.mean(2, keepdim=True)


ROWS = {
    "plain": Row(None, same),
    "step mean subtracted": Row(None, less_step_mean),
    "contrastive": Row(Difference(), same),
    "contrastive, maximum": Row(Difference(aggregate=Max()), same),
    "contrastive / std": Row(Difference(scale=BaselineStd()), same),
    "contrastive, above only": Row(AboveOnly(), same),
    "groups of 4, centred": Row(None, less_group_mean, GROUP),
    "groups of 4, centred, contrastive": Row(Difference(), less_group_mean, GROUP),
}


class World:
    """Prompts, answers and the reward model of S seeds at once, each with draws of its own."""

    def __init__(self, seed: int, seeds: int, fixed: bool) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        uniform = lambda *shape: torch.rand(*shape, generator=self.draw, dtype=torch.float64)
        normal = lambda *shape: torch.randn(*shape, generator=self.draw, dtype=torch.float64)
        rank = uniform(seeds, PROMPTS, ANSWERS).argsort(-1)
        good = torch.randint(1, ANSWERS, (seeds, PROMPTS, 1), generator=self.draw)
        self.truth = (rank < good).double()
        self.rates = torch.stack([0.4 * uniform(seeds, PROMPTS, 1), 0.4 * uniform(seeds, PROMPTS, 1)])
        self.offset, self.start = normal(seeds, PROMPTS, 1), normal(seeds, PROMPTS, ANSWERS)
        self.kept = uniform(seeds, PROMPTS, ANSWERS) if fixed else None

    def reward(self, answers: Tensor) -> Tensor:
        """The reward model's scores of answers (S, P, G)."""
        truth = self.truth.gather(2, answers)
        chance = torch.rand(truth.shape, generator=self.draw, dtype=torch.float64) if self.kept is None else self.kept.gather(2, answers)
        flipped = chance < torch.where(truth == 1, self.rates[1], self.rates[0])
        return torch.where(flipped, 1 - truth, truth) + self.offset

    def sample(self, logits: Tensor, count: int) -> Tensor:
        """Answers (S, P, count)."""
        found = torch.multinomial(logits.softmax(-1).reshape(-1, ANSWERS), count, replacement=True, generator=self.draw)
        return found.reshape(*logits.shape[:2], count)

    def gradient(self, row: Row, logits: Tensor, baseline: Tensor) -> Tensor:
        """REINFORCE's estimate of the gradient (S, P, V) of the mean over the answers of each prompt."""
        answers = self.sample(logits, row.group)
        rewards = self.reward(answers)
        if row.contrast is not None:
            rewards = row.contrast(rewards, baseline[:, :, None].expand(*rewards.shape, SAMPLES))
        score = torch.nn.functional.one_hot(answers, ANSWERS) - logits.softmax(-1)[:, :, None]
        return (row.then(rewards)[..., None] * score).mean(2)


def run(row: Row, seed: int, seeds: int, world_name: str, rate: float) -> dict[str, Tensor]:
    """By measure, one value per seed."""
    world = World(seed, seeds, world_name == "fixed")
    baseline = world.reward(world.sample(world.start, SAMPLES))
    spread = torch.stack([world.gradient(row, world.start, baseline) for _ in range(DRAWS)]).var(0).sum(-1).mean(-1)
    logits = world.start.clone()
    for _ in range(STEPS):
        logits += rate * world.gradient(row, logits, baseline)
    true = lambda policy: (policy.softmax(-1) * world.truth).sum(-1).mean(-1)
    return {"true reward": true(logits), "gradient variance": spread}


def tuned(row: Row, world: str) -> float:
    """The learning rate with the largest true reward on seeds that are not reported."""
    return max(RATES, key=lambda rate: float(run(row, 1, TUNING, world, rate)["true reward"].mean()))


def main() -> None:
    out = flags(__doc__, out=RESULTS).parse_args().out
    started = time.time()
    facts: dict[str, object] = {"seeds": SEEDS, "steps": STEPS, "samples": SAMPLES, "rates": RATES}
    pages = []
    for world in WORLDS:
        rates = {name: tuned(row, world) for name, row in ROWS.items()}
        found = {name: run(row, 0, SEEDS, world, rates[name]) for name, row in ROWS.items()}
        for measures in found.values():
            measures["minus plain"] = measures["true reward"] - found["plain"]["true reward"]
            measures["minus step mean"] = measures["true reward"] - found["step mean subtracted"]["true reward"]
        centred, both = found["groups of 4, centred"], found["groups of 4, centred, contrastive"]
        apart = float((centred["true reward"] - both["true reward"]).abs().max())
        cells = {name: {measure: values.tolist() for measure, values in one.items()} for name, one in found.items()}
        table = summary(cells)
        facts[world] = {"table": table, "learning_rates": rates, "largest_difference_of_centred_rows": apart}
        pages.append(f"## {world}\n\n{markdown(table, 'row', 3)}\n\nCentred rows with and without the baseline differ by at most {apart:.1e}.\n")
    facts["seconds"] = round(time.time() - started, 1)
    write(out, "contrastive-rewards", facts, "# contrastive-rewards\n\n" + "\n".join(pages))
    print("\n".join(pages))


if __name__ == "__main__":
    main()
