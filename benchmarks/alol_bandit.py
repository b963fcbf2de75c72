"""A-LoL and its baselines on a bandit of twelve arms whose data are half noise: expected reward and entropy of the policy, over seeds.

    python benchmarks/alol_bandit.py        (seconds on one core; writes benchmarks/results/alol-bandit.md)

One prompt, answers of one token. Half of the 2,000 rows are drawn from a good policy, softmax(6 r), half uniformly; an arm's reward r is uniform
in [0, 1] and every row's reward is noisy (standard deviation 0.1). 6 was chosen, after 3, for the level of NLL alone. The reference is the policy
after NLL on all rows, its value its expected reward. Every other method goes on from there for 300 steps of 32 rows drawn by its own rule, Adam
with rate 0.02.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finegrain.objectives.alol import KL, ALoL, RefFree, Seq
from finegrain.objectives.gold import GOLD
from finegrain.objectives.nll import NLL
from finegrain.objectives.r_lol import RLoL
from finegrain.objectives.reward_rows import EveryRow, GoodRandom
from finegrain.objectives.wbc import WBC
from finegrain.types import Objective, Pair, Side, row_losses

ARMS, ROWS, STEPS, BATCH, RATE, SEEDS = 12, 2000, 300, 32, 0.02, 5
METHODS: dict[str, Objective] = {
    "nll, going on": NLL(),
    "wbc": WBC(),
    "gold": GOLD(),
    "r-lol": RLoL(),
    "alol kl, beta 0.05": ALoL(variant=KL()),
    "alol ref-free": ALoL(variant=RefFree()),
    "alol": ALoL(),
    "alol seq": ALoL(variant=Seq()),
    "alol, good-random": ALoL(sampling=GoodRandom()),
}


def make_rows(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards of the arms, arms of the rows, rewards of the rows."""
    draw = np.random.default_rng(seed)
    arms = draw.uniform(size=ARMS)
    good = np.exp(6 * arms)
    taken = np.concatenate([draw.choice(ARMS, ROWS // 2, p=good / good.sum()), draw.integers(ARMS, size=ROWS // 2)])
    return arms, taken, np.clip(arms[taken] + draw.normal(0, 0.1, ROWS), 0, 1)


def train(objective: Objective, start: Tensor, taken: np.ndarray, rewards: np.ndarray, value: float, seed: int, *, steps: int = STEPS) -> Tensor:
    """Logits after training."""
    draw = np.random.default_rng([seed, 1])
    logits, reference = start.clone().requires_grad_(), start.log_softmax(-1)
    optimiser = torch.optim.Adam([logits], lr=RATE)
    advantage = rewards - value
    weights = advantage if isinstance(objective, ALoL) else rewards
    sampling = getattr(objective, "sampling", EveryRow())
    chance = np.ones(ROWS) if isinstance(sampling, EveryRow) else sampling(weights)
    for _ in range(steps):
        rows = draw.choice(ROWS, BATCH, p=chance / chance.sum())
        arms = torch.from_numpy(taken[rows])
        side = Side(logp=logits.log_softmax(-1)[arms, None], ref_logp=reference[arms, None], mask=torch.ones(BATCH, 1, dtype=torch.bool))
        columns = {"advantage": torch.from_numpy(advantage[rows]), "scored_reward": torch.from_numpy(rewards[rows])}
        loss = row_losses(objective(Pair(sides={"answer": side}, columns=columns))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return logits.detach()


def run_seed(seed: int) -> tuple[dict[str, tuple[float, float]], float]:
    """(expected reward, entropy in nats) by method, and the share of rows with negative advantage."""
    arms, taken, rewards = make_rows(seed)
    start = train(NLL(), torch.zeros(ARMS, dtype=torch.float64), taken, rewards, 0.0, seed, steps=1000)
    value = float(start.softmax(-1) @ torch.from_numpy(arms))
    finals = {"reference (nll)": start}
    finals |= {name: train(objective, start, taken, rewards, value, seed) for name, objective in METHODS.items()}
    describe = lambda logits: (float(logits.softmax(-1) @ torch.from_numpy(arms)), float(torch.distributions.Categorical(logits=logits).entropy()))
    return {name: describe(logits) for name, logits in finals.items()}, float((rewards <= value).mean())


def main() -> None:
    """Writes the table."""
    found = [run_seed(seed) for seed in range(SEEDS)]
    lines = ["| method | expected reward | over seeds | entropy, nats |", "| --- | --- | --- | --- |"]
    for name in found[0][0]:
        reward, entropy = (np.array([one[name][place] for one, _ in found]) for place in (0, 1))
        lines.append(f"| {name} | {reward.mean():.3f} | {reward.min():.3f} to {reward.max():.3f} | {entropy.mean():.2f} |")
    negative = np.mean([share for _, share in found])
    head = (__doc__ or "").replace("    python", "`python").replace("        (", "` (")
    text = f"# A-LoL on a bandit\n\n{head}\nMean of {SEEDS} seeds; rows with negative advantage: {negative:.1%}.\n\n" + "\n".join(lines) + "\n"
    (Path(__file__).parent / "results" / "alol-bandit.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
