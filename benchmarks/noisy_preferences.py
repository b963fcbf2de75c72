"""What repairs of noisy pairs are worth where the truth is known: linear rewards, labels flipped on top of a coin's noise. Two minutes, one core.

    python benchmarks/noisy_preferences.py

A seed draws a reward of 24 features, 1500 pairs labelled by a Bradley-Terry coin, and flips a share of the labels. Every method fits the same
linear reward and is judged by how often it puts 4000 fresh pairs in their true order. Writes benchmarks/results/noisy_preferences.{json,md}.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from command import flags, write
from places import RESULTS
from torch import Tensor

from finegrain.curate.repairs import Flip, FlipMargin, Margin, Repair, Soft, SoftMargin
from finegrain.curate.secrets_rm import SecretsRM
from finegrain.curate.votes import Linear, split_in_halves
from finegrain.objectives.robust import robust_loss
from finegrain.ops.stats import mean_interval
from finegrain.rewards.bradley_terry import bradley_terry_loss

WIDTH, PAIRS, TEST = 24, 1500, 4000
SCALE = 2.0
"""Standard deviation of true differences in units of the coin: about four labels in five agree with the truth before any flip."""
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
USUAL_SHARE, USUAL_SMOOTHING = 0.2, 0.1

Loss = Callable[[Tensor], Tensor]


Draw = Callable[[np.random.Generator, int], np.ndarray]


def gaussian(rng: np.random.Generator, count: int) -> np.ndarray:
    """Feature differences of much the same length: no pair is clear, wrong labels pull in all directions alike."""
    return rng.normal(size=(count, WIDTH))


def heavy_tailed(rng: np.random.Generator, count: int) -> np.ndarray:
    """Multivariate Student t with 2 degrees of freedom: some pairs are very clear, and their wrong labels pull hard."""
    return rng.normal(size=(count, WIDTH)) / np.sqrt(rng.chisquare(2, size=(count, 1)) / 2)


def many(rng: np.random.Generator, count: int) -> np.ndarray:
    """Gaussian, with 400 features of which the reward reads 24: a model that fits its labels closely learns wrong ones by heart."""
    return rng.normal(size=(count, 400))


WORLDS: Mapping[str, Draw] = {"gaussian": gaussian, "heavy-tailed": heavy_tailed, "many features": many}


class World:
    """One seed's truth and data at one share of flips."""

    def __init__(self, features: Draw, seed: int, share: float) -> None:
        rng = np.random.default_rng(seed)
        self.truth = rng.normal(size=WIDTH)
        self.truth *= SCALE / np.linalg.norm(self.truth)
        pairs = features(rng, PAIRS)
        self.truth = np.concatenate([self.truth, np.zeros(pairs.shape[1] - WIDTH)])
        coin = rng.random(PAIRS) < 1 / (1 + np.exp(-pairs @ self.truth))
        self.before = np.where(coin[:, None], pairs, -pairs)
        self.flipped = rng.random(PAIRS) < share
        self.pairs = np.where(self.flipped[:, None], -self.before, self.before)
        self.test = features(rng, TEST)
        self.share = share
        self.margins = Linear()(self.pairs, split_in_halves(np.arange(PAIRS), 5, seed))
        by_heart = Linear()(np.concatenate([self.pairs, self.pairs]), np.arange(2 * PAIRS)[None] < PAIRS)
        self.own_margins = by_heart[:, PAIRS:]

    def accuracy(self, weight: np.ndarray) -> float:
        """Share of fresh pairs in their true order."""
        return float((np.sign(self.test @ weight) == np.sign(self.test @ self.truth)).mean())


def fitted(pairs: np.ndarray, loss: Loss, ridge: float = 0.001) -> np.ndarray:
    """The linear reward that minimises the mean loss of score differences plus ridge / 2 times its squared norm."""
    features = torch.from_numpy(pairs)
    weight = torch.zeros(pairs.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss(features @ weight).mean() + ridge / 2 * weight.square().sum()
        total.backward()
        return total

    optimizer.step(closure)
    return weight.detach().numpy()


def repaired(world: World, repair: Repair, margins: np.ndarray | None = None) -> float:
    """Accuracy after the repair's columns."""
    columns = {
        name: torch.from_numpy(values) for name, values in SecretsRM(repair=repair)(world.margins if margins is None else margins).columns.items()
    }
    labels: dict[str, Any] = {"margin": columns["margin"]} if "margin" in columns else {}
    labels |= {"flip": 1 - 2 * columns["flip"]} if "flip" in columns else {}
    labels |= {"label_smoothing": 1 - columns["label_prob"]} if "label_prob" in columns else {}
    return world.accuracy(fitted(world.pairs, lambda z: bradley_terry_loss(z, **labels)))


def _robust(world: World, rate: float) -> float:
    return world.accuracy(fitted(world.pairs, lambda z: robust_loss(z, beta=1.0, label_smoothing=rate)))


METHODS: Mapping[str, Callable[[World], float]] = {
    "bradley-terry": lambda world: world.accuracy(fitted(world.pairs, bradley_terry_loss)),
    "bradley-terry, ridge 0.1": lambda world: world.accuracy(fitted(world.pairs, bradley_terry_loss, ridge=0.1)),
    "conservative, smoothing 0.1": lambda w: w.accuracy(fitted(w.pairs, lambda z: bradley_terry_loss(z, label_smoothing=USUAL_SMOOTHING))),
    "robust, rate 0.2": lambda world: _robust(world, USUAL_SHARE),
    "robust, true rate": lambda world: _robust(world, world.share),
    "soft, smoothing 0.1": lambda world: repaired(world, Soft()),
    "soft, smoothing 0.5": lambda world: repaired(world, Soft(smoothing=0.5)),
    "margin": lambda world: repaired(world, Margin()),
    "soft+margin": lambda world: repaired(world, SoftMargin()),
    "flip, share 0.2": lambda world: repaired(world, Flip(share=USUAL_SHARE)),
    "flip, true share": lambda world: repaired(world, Flip(share=world.share)),
    "flip, share 0.2, votes on own pairs": lambda world: repaired(world, Flip(share=USUAL_SHARE), world.own_margins),
    "flip+margin, share 0.2": lambda world: repaired(world, FlipMargin(flip=Flip(share=USUAL_SHARE))),
    "flips undone (ceiling)": lambda world: world.accuracy(fitted(world.before, bradley_terry_loss)),
}


def found(world: World) -> dict[str, float]:
    """How far the least strengths are the flipped labels, and how many strengths are negative."""
    out = SecretsRM(repair=Flip(share=USUAL_SHARE))(world.margins)
    flips = out.columns["flip"].astype(bool)
    both = float((flips & world.flipped).sum())
    return {
        "recall": both / max(1.0, float(world.flipped.sum())),
        "precision": both / flips.sum(),
        "wrong or flipped": float((world.pairs[flips] @ world.truth < 0).mean()),
        "negative": float(out.strength.negative.mean()),
    }


def cell(values: list[float], digits: int = 3) -> str:
    """Mean and its 95 % interval over seeds."""
    interval = mean_interval(values)
    assert interval.low is not None
    assert interval.high is not None
    return f"{interval.mean:.{digits}f} ({interval.low:.{digits}f}, {interval.high:.{digits}f})"


def table(name: str, results: Mapping[str, Any]) -> str:
    """Accuracies, paired differences from Bradley-Terry, and what votes find, in one world."""
    head = "| " + " | ".join(["method", *(f"{share:.0%} flipped" for share in SHARES)]) + " |"
    rule = "| --- " * (len(SHARES) + 1) + "|"
    scores = results["accuracy"]
    base = scores["bradley-terry"]
    line = lambda method, cells: f"| {method} | " + " | ".join(cells) + " |"
    rows = [line(method, (cell(scores[method][str(share)]) for share in SHARES)) for method in METHODS]
    less = lambda method, share: [a - b for a, b in zip(scores[method][share], base[share], strict=True)]
    paired = [line(method, (cell(less(method, str(share))) for share in SHARES)) for method in list(METHODS)[1:]]
    votes = [line(measure, (cell(own[str(share)], 2) for share in SHARES)) for measure, own in results["found"].items()]
    parts = [f"## {name}", "", (WORLDS[name].__doc__ or ""), "", head, rule, *rows, "", "Difference from Bradley-Terry on the same seed:", ""]
    parts += [head, rule, *paired, "", "The fifth of the pairs with the least strength:", "", head.replace("method", "measure"), rule, *votes, ""]
    return "\n".join(parts)


def page(results: Mapping[str, Any], seeds: int, seconds: float) -> str:
    """All worlds, and what the columns mean."""
    setting = (
        f"Made by `benchmarks/noisy_preferences.py`: {seeds} seeds, {seconds:.0f} s on one core. {PAIRS} pairs, labels drawn from Bradley-Terry "
        f"(scale {SCALE:g}), then flipped at random; accuracy of the true order of {TEST} fresh pairs, mean over seeds with its 95 % Student "
        "interval. All fits have a ridge of 0.001 but where another is named. Votes: 10 linear models on halves of the pairs. Rates and shares "
        "called true are an oracle's."
    )
    measures = (
        "Measures of the last table: how many flipped labels are in the fifth (recall; means nothing at 0 %), how many of it are flipped "
        "(precision), how many of it contradict the truth, be it by a flip or by the coin, and the share of all pairs with negative strength."
    )
    tables = [table(*one) for one in results.items()]
    return "\n".join(["# Noisy preferences: repairs where the truth is known", "", setting, "", measures, "", *tables])


def measured(features: Draw, seeds: int) -> dict[str, Any]:
    """Accuracies and what votes find, by share and seed."""
    worlds = {share: [World(features, seed, share) for seed in range(seeds)] for share in SHARES}
    votes = {share: [found(world) for world in own] for share, own in worlds.items()}
    return {
        "accuracy": {name: {str(share): [method(world) for world in own] for share, own in worlds.items()} for name, method in METHODS.items()},
        "found": {name: {str(share): [one[name] for one in own] for share, own in votes.items()} for name in votes[SHARES[0]][0]},
    }


def main() -> None:
    options = flags(__doc__, seeds=20).parse_args()
    started = time.perf_counter()
    results = {name: measured(features, options.seeds) for name, features in WORLDS.items()}
    text = page(results, options.seeds, time.perf_counter() - started)
    write(RESULTS, "noisy_preferences", results, text, indent=None)
    print(text)


if __name__ == "__main__":
    main()
