"""Do bounds on features keep best-of-n from walking off the data, and what do they cost on clean pairs? The linear world of `bayesian_rm.py`.

20 features, 10 of which are 0 in all 200 training pairs and keep their random start weights; gold = linear in the seen ones - 0.4 * sum of
the squares of the unseen ones; 512 candidates per prompt, whose unseen features have a standard deviation that is exponential with the mean
square of 0.67 (world `varied` there). New here: 500 clean pairs that bounds are fitted on, and 2000 that they are judged on, labelled by gold.
What decides is how much of the unseen features clean answers show: their standard deviation there is 0, 0.2 or 0.67.

    python benchmarks/score_bounds.py           writes benchmarks/results/score-bounds.json and .md, under a minute on one core
"""

import time

import torch
from bayesian_rm import CANDIDATES, PAIRS, PENALTY, PROMPTS, SEEDS, SEEN, UNSEEN, UNSEEN_SPREAD, train
from command import flags, write
from places import RESULTS
from tables import markdown, summary
from torch import Tensor

from finegrain.ops.aggregate import MinusStd
from finegrain.ops.best_of_n import expected_best
from finegrain.rewards.clipped_head import FitBounds, SameLabels, same_order
from finegrain.rewards.laplace import EvidenceVariance, fit_posterior, pair_curvature
from finegrain.rewards.mm_calibration import AdaptivePrice, Bounds, clip_features, detection_threshold, quantile_bounds
from finegrain.types import Scored

SHOWN = (0.0, 0.2, 0.67)
CLEAN, JUDGED = 500, 2000
Row = dict[str, float]


def one_seed(seed: int, shown: float) -> dict[str, Row]:
    """By row: gold reward of best-of-n, what happened to clean pairs, and the flagged share of clean answers and of candidates."""
    draw = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)
    uniform = lambda *shape: torch.rand(*shape, generator=draw, dtype=torch.float64)
    truth = normal(SEEN)
    gold_of = lambda features: features[..., :SEEN] @ truth - PENALTY * features[..., SEEN:].square().sum(-1)

    def pairs(count: int, spread: float) -> tuple[Tensor, Tensor]:
        one, other = (torch.cat([normal(count, SEEN), spread * normal(count, UNSEEN)], 1) for _ in range(2))
        wins = (uniform(count) < torch.sigmoid(gold_of(one) - gold_of(other)))[:, None]
        return torch.where(wins, one, other), torch.where(wins, other, one)

    chosen, rejected = pairs(PAIRS, 0.0)
    weight = train(normal(SEEN + UNSEEN), chosen - rejected)
    posterior = fit_posterior(weight, pair_curvature(chosen - rejected, (chosen - rejected) @ weight), EvidenceVariance())
    clean, judged = pairs(CLEAN, shown), pairs(JUDGED, shown)
    spread = -uniform(PROMPTS, CANDIDATES, 1).log() * UNSEEN_SPREAD / 2**0.5
    features = torch.cat([normal(PROMPTS, CANDIDATES, SEEN), spread * normal(PROMPTS, CANDIDATES, UNSEEN)], 2)
    gold = gold_of(features)

    def best(proxy: Tensor) -> Row:
        return {f"n = {n}": float(expected_best(proxy.numpy(), gold.numpy(), n).mean()) for n in (1, 16, 512)}

    def behind(bounds: Bounds) -> Row:
        kept, answers = same_order(weight, *judged, bounds), torch.cat(judged)
        gap = (answers - clip_features(answers, bounds)) @ weight
        clipped = clip_features(features, bounds) @ weight
        flagged = features @ weight - clipped > detection_threshold(gap)
        right = ((clip_features(judged[0], bounds) - clip_features(judged[1], bounds)) @ weight > 0).double().mean()
        raw = ((judged[0] - judged[1]) @ weight > 0).double().mean()
        clean_cost = {"order kept, %": 100 * float(kept.double().mean()), "accuracy less raw's, points": 100 * float(right - raw)}
        unflagged = torch.where(flagged, -1e9, clipped)
        return {
            **best(clipped),
            **clean_cost,
            "candidates flagged, %": 100 * float(flagged.double().mean()),
            "n = 512, none flagged": best(unflagged)["n = 512"],
        }

    stricter = AdaptivePrice(agreement=0.99)
    return {
        "raw": best(features @ weight),
        "bounds at the 0.999 quantiles": behind(quantile_bounds(torch.cat(clean))),
        "same-scores, agreement 0.95": behind(FitBounds()(weight, *clean).bounds),
        "same-scores, agreement 0.99": behind(FitBounds(price=stricter)(weight, *clean).bounds),
        "same-labels, agreement 0.95": behind(FitBounds()(weight, *clean, SameLabels()).bounds),
        "posterior, mean - 3 sd": best(MinusStd(k=3.0)(Scored(features @ weight, posterior.variance(features).sqrt()))),
        "gold (bound)": best(gold),
    }


def main() -> None:
    arguments = flags(__doc__, seeds=SEEDS, out=RESULTS).parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    tables = {}
    for shown in SHOWN:
        found = [one_seed(seed, shown) for seed in range(arguments.seeds)]
        cells = {row: {column: [one[row][column] for one in found] for column in found[0][row]} for row in found[0]}
        for row in cells:
            if row != "raw":
                cells[row]["n = 512 less raw"] = [one[row]["n = 512"] - one["raw"]["n = 512"] for one in found]
        tables[f"{shown:g}"] = summary(cells)
    seconds = round(time.process_time() - started, 1)
    parts = "\n\n".join(
        f"**Clean answers show the unseen features with standard deviation {name}**\n\n{markdown(t, 'proxy')}" for name, t in tables.items()
    )
    page = (
        f"Gold reward of the best of n by each proxy, and what bounds do to {JUDGED} clean pairs they were not fitted on; mean ± 95 % interval over "
        f"{arguments.seeds} seeds of {PROMPTS} prompts.\n\n{parts}\n\n{seconds} s on one core; `python benchmarks/score_bounds.py`.\n"
    )
    write(arguments.out, "score-bounds", {"seeds": arguments.seeds, "tables": tables, "cpu_seconds": seconds}, page)
    print(page)


if __name__ == "__main__":
    main()
