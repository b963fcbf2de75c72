"""SELM on a table of answers: do larger alphas show the ranker more different answers, and is the policy better for it?

    python benchmarks/selm.py [--quick] [--out benchmarks/results]

64 prompts with 40 answers each and a true reward of each answer; the policy is a table of logits. In a round the policy's greedy answer of every
prompt is ranked with a pair of the data, which holds the worse half of the answers alone; the policy then trains with the reference of the round.
Arms: alpha 0 (iterative DPO), .1, .3, .6 and 1, and the control, a push of the same size away from an answer drawn at random: it explores for no
reason. Every arm has the same three learning rates, tuned on two seeds that are not reported. The paper's alpha is 0.001: these are 100 to 1000 times
larger, and what they gain says nothing about 0.001. Plain gradient steps and Adam are compared, since Adam makes a step of full size of any
gradient, also of a push on an answer that no pair holds. Writes selm.{json,md}.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from command import flags, write
from places import RESULTS, describe_processor
from tables import shown

from finegrain.objectives.selm import SELM
from finegrain.ops.stats import mean_interval
from finegrain.types import Pair, Side

PROMPTS, ANSWERS, ROUNDS, STEPS, BETA = 64, 40, 6, 30, 0.1
OPTIMISERS: dict[str, tuple[type[torch.optim.Optimizer], tuple[float, ...]]] = {
    "plain gradient": (torch.optim.SGD, (0.3, 1.0, 3.0)),
    "Adam": (torch.optim.Adam, (0.01, 0.03, 0.1)),
}
"""With the rates that every arm chooses from."""
PAPER = 0.001
ARMS = {
    "alpha 0": (0.0, False),
    "alpha 0.1": (0.1, False),
    "alpha 0.3": (0.3, False),
    "alpha 0.6": (0.6, False),
    "alpha 1": (1.0, False),
    "random push 0.3": (0.3, True),
    "random push 0.6": (0.6, True),
}


def run(seed: int, alpha: float, *, random_push: bool, optimiser_type: type[torch.optim.Optimizer], rate: float) -> dict[str, float]:
    """Distinct greedy answers per prompt over all rounds, the expected reward, and KL(policy || start) in nats."""
    rng, rows = np.random.default_rng(seed), np.arange(PROMPTS)
    reward = rng.random((PROMPTS, ANSWERS))
    worse = np.argsort(reward, 1)[:, : ANSWERS // 2]
    logits = torch.tensor(rng.normal(size=(PROMPTS, ANSWERS)), requires_grad=True)
    first = logits.detach().log_softmax(-1)
    seen: list[set[int]] = [set() for _ in rows]
    objective = SELM(beta=BETA, alpha=alpha)
    for _ in range(ROUNDS):
        start = logits.detach().clone()
        greedy = start.argmax(-1).numpy()
        for own, answer in zip(seen, greedy, strict=True):
            own.add(int(answer))
        pair = np.stack([rng.choice(own, 2, replace=False) for own in worse])
        three = np.concatenate([pair, greedy[:, None]], 1)
        scores = reward[rows[:, None], three]
        best, worst = three[rows, scores.argmax(1)], three[rows, scores.argmin(1)]
        pushed = rng.integers(ANSWERS, size=PROMPTS) if random_push else greedy
        optimiser = optimiser_type([logits], lr=rate)
        for _ in range(STEPS):
            loss = objective(Pair(sides={role: side(logits, start, own) for role, own in zip(SELM.roles, (best, worst, pushed), strict=True)})).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    logp = logits.detach().log_softmax(-1)
    kl = float((logp.exp() * (logp - first)).sum(-1).mean())
    return {"distinct": float(np.mean([len(own) for own in seen])), "reward": float((logp.exp().numpy() * reward).sum(1).mean()), "kl": kl}


def side(logits: torch.Tensor, start: torch.Tensor, answers: np.ndarray) -> Side:
    """One answer per prompt, as an answer of one token."""
    place = torch.from_numpy(answers)[:, None]
    mask = torch.ones(len(answers), 1, dtype=torch.bool)
    return Side(logp=logits.log_softmax(-1).gather(1, place), ref_logp=start.log_softmax(-1).gather(1, place), mask=mask)


def measure(seeds: range, tuning: range) -> list[dict[str, Any]]:
    """Every arm at its best rate, under each optimiser."""
    rows: list[dict[str, Any]] = []
    for optimiser, (kind, rates) in OPTIMISERS.items():
        for name, (alpha, random_push) in ARMS.items():
            one = partial(run, alpha=alpha, random_push=random_push, optimiser_type=kind)
            tried = {rate: float(np.mean([one(seed, rate=rate)["reward"] for seed in tuning])) for rate in rates}
            rate = max(tried, key=tried.__getitem__)
            found = [one(seed, rate=rate) for seed in seeds]
            about = {"optimiser": optimiser, "arm": name, "alpha": alpha, "rate": rate, "tried": tried}
            rows.append({**about, **{key: [own[key] for own in found] for key in found[0]}})
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """The page."""
    lines = [
        "# SELM by alpha", "", f"{describe_processor()['processor']}. {PROMPTS} prompts with {ANSWERS} answers, {ROUNDS} rounds of {STEPS} steps, "
        f"beta {BETA}, three rates tuned for each arm on two other seeds; means ± half of a 95 % interval over "
        f"{len(rows[0]['reward'])} seeds. The paper's alpha is {PAPER:g}.", "",
        "| optimiser | arm | times the paper's alpha | rate | distinct greedy answers | expected reward | less alpha 0, paired | KL, nats |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in rows:
        base = next(one for one in rows if one["optimiser"] == row["optimiser"])
        gain = mean_interval([one - other for one, other in zip(row["reward"], base["reward"], strict=True)])
        numbers = f"{shown(mean_interval(row['distinct']), 2)} | {shown(mean_interval(row['reward']))} | {shown(gain)} | {np.mean(row['kl']):.2f}"
        lines.append(f"| {row['optimiser']} | {row['arm']} | {row['alpha'] / PAPER:.0f} | {row['rate']:g} | {numbers} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """All arms."""
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--quick", action="store_true", help="two seeds, printed and not written")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(range(2) if asked.quick else range(5), range(11, 13))
    if asked.quick:
        print(report(rows))
    else:
        write(asked.out, "selm", {"rows": rows, "paper_alpha": PAPER}, report(rows))


if __name__ == "__main__":
    main()
