"""Does subtracting what a posterior does not know keep best-of-n from walking off the data? A linear reward with features no pair shows.

A demonstration [OURS]: 20 features, 10 of which are 0 in all 200 training pairs and keep their random start weights;
gold = linear in the seen ones - 0.4 * sum of the squares of the unseen ones; 512 candidates per prompt;
standard normal seen features, true and start weights N(0, 1), 20 prompts per seed, weights trained to convergence from their start without
decay. Two worlds of candidates, both with a gold of -1.8 at n = 1: `equal`, where all have unseen features of standard deviation
0.67, and `varied`, where a candidate's own standard deviation is exponential with the same mean square, so that some are far off the data.

    python benchmarks/bayesian_rm.py            writes benchmarks/results/bayesian-rm.json and .md, under a minute on one core
"""

import time

import numpy as np
import torch
from command import flags, write
from places import RESULTS
from tables import markdown, summary
from torch import Tensor

from finegrain.ops.aggregate import MeanOfPenalties, MeanReward, MinusStd, MinusVariance, PerSample
from finegrain.ops.best_of_n import expected_best, kl_of_best
from finegrain.rewards.heads import combine_members
from finegrain.rewards.laplace import EvidenceVariance, FixedVariance, Posterior, fit_posterior, pair_curvature
from finegrain.types import Scored

SEEN, UNSEEN, PAIRS, CANDIDATES, PROMPTS = 10, 10, 200, 512, 20
UNSEEN_SPREAD, PENALTY, MEMBERS, SEEDS = 0.67, 0.4, 5, 20
WORLDS = ("equal", "varied")
NS = (1, 4, 16, 64, 128, 512)


def train(start: Tensor, difference: Tensor) -> Tensor:
    """Weights of a Bradley-Terry fit by gradient steps of L-BFGS; where no pair speaks they stay."""
    weight = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weight], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -torch.nn.functional.logsigmoid(difference @ weight).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    return weight.detach()


def one_seed(seed: int, world: str) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Gold reward of best-of-n by row and n; prior variances found."""
    draw = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)
    truth = normal(SEEN)
    difference = torch.cat([normal(PAIRS, SEEN) - normal(PAIRS, SEEN), torch.zeros(PAIRS, UNSEEN, dtype=torch.float64)], 1)
    wins = torch.rand(PAIRS, generator=draw, dtype=torch.float64) < torch.sigmoid(difference[:, :SEEN] @ truth)
    difference = torch.where(wins[:, None], difference, -difference)
    weights = [train(normal(SEEN + UNSEEN), difference) for _ in range(MEMBERS)]
    curvatures = [pair_curvature(difference, difference @ weight) for weight in weights]
    evidence = [fit_posterior(*both, EvidenceVariance()) for both in zip(weights, curvatures, strict=True)]
    unit = [fit_posterior(*both, FixedVariance(variance=1.0)) for both in zip(weights, curvatures, strict=True)]
    exponential = -torch.rand(PROMPTS, CANDIDATES, 1, generator=draw, dtype=torch.float64).log() * UNSEEN_SPREAD / 2**0.5
    spread = exponential if world == "varied" else torch.full_like(exponential, UNSEEN_SPREAD)
    features = torch.cat([normal(PROMPTS, CANDIDATES, SEEN), spread * normal(PROMPTS, CANDIDATES, UNSEEN)], 2)
    gold = features[..., :SEEN] @ truth - PENALTY * features[..., SEEN:].square().sum(-1)

    def alone(posterior: Posterior) -> Scored:
        return Scored(features @ posterior.weight, posterior.variance(features).sqrt())

    means = torch.stack([features @ weight for weight in weights])
    apart, joined = combine_members(means), combine_members(means, torch.stack([one.variance(features).sqrt() for one in evidence]))
    proxies = {
        "MAP": MeanReward()(alone(evidence[0])),
        "mean - 1 sd": MinusStd(k=1.0)(alone(evidence[0])),
        "mean - 3 sd": MinusStd(k=3.0)(alone(evidence[0])),
        "mean - 1 var": MinusVariance(k=1.0)(alone(evidence[0])),
        "mean - 3 sd, s2 = 1": MinusStd(k=3.0)(alone(unit[0])),
        "5 members, mean": MeanReward()(apart),
        "5 members, least": PerSample()(apart),
        "5 members, mean - 3 sd of the members": MinusStd(k=3.0)(apart),
        "5 posteriors, mixture, mean - 3 sd": MinusStd(k=3.0)(joined),
        "5 posteriors, mean of mean - 3 sd": MeanOfPenalties(k=3.0)(joined),
        "gold (bound)": gold,
    }
    curves = {name: {f"n = {n}": float(expected_best(proxy.numpy(), gold.numpy(), n).mean()) for n in NS} for name, proxy in proxies.items()}
    return curves, {"prior_variance": float(np.mean([one.prior_variance for one in evidence]))}


def main() -> None:
    arguments = flags(__doc__, seeds=SEEDS, out=RESULTS).parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    tables, priors = {}, []
    for world in WORLDS:
        found = [one_seed(seed, world) for seed in range(arguments.seeds)]
        priors = [facts["prior_variance"] for _, facts in found]
        tables[world] = summary(columns([curves for curves, _ in found]))
    prior = summary({"s2": {"mean": priors}})
    seconds = round(time.process_time() - started, 1)
    kl = ", ".join(f"{kl_of_best(n):.2f}" for n in NS)
    shown = "\n\n".join(f"**Candidates: {world}**\n\n{markdown(table, 'proxy')}" for world, table in tables.items())
    page = (
        f"Gold reward of the best of n by each proxy, mean ± 95 % interval over {arguments.seeds} seeds of {PROMPTS} prompts; "
        f"the last two columns are paired differences. KL of best-of-n in nats: {kl}.\n\n{shown}\n\n"
        f"Prior variance by evidence: {prior['s2']['mean'][0]:.2f} ± {prior['s2']['mean'][1]:.2f} (start weights: 1). {seconds} s on one core; "
        "`python benchmarks/bayesian_rm.py`.\n"
    )
    write(arguments.out, "bayesian-rm", {"seeds": arguments.seeds, "gold": tables, **prior, "cpu_seconds": seconds}, page)
    print(page)


def columns(seeds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """One value per seed by proxy and n, with the fall from n = 4 and the distance to MAP."""
    cells: dict[str, dict[str, list[float]]] = {}
    for row, curve in seeds[0].items():
        cells[row] = {column: [curves[row][column] for curves in seeds] for column in curve}
        cells[row]["n = 512 less n = 4"] = [curves[row]["n = 512"] - curves[row]["n = 4"] for curves in seeds]
        if row != "MAP":
            cells[row]["n = 512 less MAP"] = [curves[row]["n = 512"] - curves["MAP"]["n = 512"] for curves in seeds]
    return cells


if __name__ == "__main__":
    main()
