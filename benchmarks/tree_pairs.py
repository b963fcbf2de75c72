"""Pairs from trees, from independent responses, or both, at an equal number of labels: what a reward model then tells apart. Seconds, one core.

    python benchmarks/tree_pairs.py

A grammar without language: a response is 4 phrases of 8; its true reward adds a value of every phrase at its place and of every neighbouring
couple. 40 prompts, 8 labelled pairs each, labels from a Bradley-Terry coin; the reward model is linear in phrases and couples. Leaves of 2^4 trees
against two fresh responses per pair. Writes benchmarks/results/tree_pairs.md.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from command import flags
from places import RESULTS

from finegrain.curate.tree import ByDepth
from finegrain.curate.tree_rm import Ids, TreeRM
from finegrain.curate.votes import bradley_terry_fit
from finegrain.ops.stats import mean_interval

RESULT = RESULTS / "tree_pairs.md"
PHRASES, PLACES, PROMPTS, PAIRS, TEST = 8, 4, 40, 8, 2000
RIDGE = 0.003
MIXES: Mapping[str, TreeRM | None] = {
    "independent": None,
    "tree": TreeRM(depth=PLACES, pairs=PAIRS, chain_fraction=0.0),
    "tree, a fifth parts at the root": TreeRM(depth=PLACES, pairs=PAIRS),
    "tree, by depth": TreeRM(depth=PLACES, pairs=PAIRS, chain_fraction=0.0, sampler=ByDepth()),
}
"""Designs; None: two fresh responses a pair."""


def features(responses: np.ndarray) -> np.ndarray:
    """(N, F): which phrase stands at each place, and which couple at each two neighbouring places."""
    single = np.eye(PHRASES)[responses].reshape(len(responses), -1)
    couples = responses[:, :-1] * PHRASES + responses[:, 1:]
    return np.concatenate([single, np.eye(PHRASES**2)[couples].reshape(len(responses), -1)], 1)


def both_answers(rng: np.random.Generator, settings: TreeRM | None) -> tuple[np.ndarray, np.ndarray]:
    """Both answers of all labelled pairs, before the label."""
    if settings is None:
        return rng.integers(0, PHRASES, (PROMPTS * PAIRS, PLACES)), rng.integers(0, PHRASES, (PROMPTS * PAIRS, PLACES))
    first, second = [], []
    for _ in range(PROMPTS):
        extend = lambda asked, finish, seed: [((*response, int(rng.integers(0, PHRASES))), finish) for response in asked]
        leaves: Sequence[Ids] = settings.grow(extend, 0)
        for pair in settings(leaves, rng):
            first.append(leaves[pair.first])
            second.append(leaves[pair.second])
    return np.array(first), np.array(second)


def measured(seed: int, settings: TreeRM | None) -> dict[str, float]:
    """Accuracy on fresh pairs by kind, and the true reward of the best of 16."""
    rng = np.random.default_rng([seed, 0])
    truth = rng.normal(size=features(np.zeros((1, PLACES), dtype=int)).shape[1]) * 0.7
    rng = np.random.default_rng([seed, 1])
    first, second = both_answers(rng, settings)
    difference = features(first) - features(second)
    right = rng.random(len(difference)) < 1 / (1 + np.exp(-difference @ truth))
    weight = bradley_terry_fit(np.where(right[:, None], difference, -difference), RIDGE)
    fresh = np.random.default_rng([seed, 2])
    one, other = fresh.integers(0, PHRASES, (2, TEST, PLACES))
    related = other.copy()
    related[:, : PLACES - 1] = one[:, : PLACES - 1]

    def accuracy(changed: np.ndarray) -> float:
        found = features(one) - features(changed)
        differs = (one != changed).any(1)
        return float((np.sign(found @ weight) == np.sign(found @ truth))[differs].mean())

    drawn = features(fresh.integers(0, PHRASES, (TEST * 16 // 10, PLACES)))[: TEST // 16 * 16].reshape(-1, 16, len(truth))
    best = np.take_along_axis(drawn @ truth, (drawn @ weight).argmax(1)[:, None], 1)
    return {
        "unrelated pairs": accuracy(other),
        "pairs that differ in the last phrase": accuracy(related),
        "best of 16, true reward": float(best.mean()),
    }


def cell(values: Sequence[float]) -> str:
    """Mean and 95 % interval over seeds."""
    interval = mean_interval(list(values))
    return f"{interval.mean:.3f} ({interval.low:.3f}, {interval.high:.3f})"


def main() -> None:
    options = flags(__doc__, seeds=40).parse_args()
    started = time.perf_counter()
    found = {name: [measured(seed, settings) for seed in range(options.seeds)] for name, settings in MIXES.items()}
    measures = list(found["tree"][0])
    head = [f"| design | {' | '.join(measures)} |", "| --- " * (len(measures) + 1) + "|"]
    rows = [f"| {name} | " + " | ".join(cell([one[measure] for one in own]) for measure in measures) + " |" for name, own in found.items()]
    base = found["independent"]
    paired = [
        f"| {name} | " + " | ".join(cell([a[m] - b[m] for a, b in zip(own, base, strict=True)]) for m in measures) + " |"
        for name, own in found.items()
        if name != "independent"
    ]
    setting = (
        f"Made by `benchmarks/tree_pairs.py`: {options.seeds} seeds, {time.perf_counter() - started:.0f} s on one core; {PROMPTS} prompts with "
        f"{PAIRS} labelled pairs each in every design; means over seeds with 95 % Student intervals. The setting is in the file's docstring."
    )
    lines = ["# Trees and independent responses", "", setting, "", *head, *rows, "", "Difference from independent responses, same seed:", ""]
    RESULT.write_text("\n".join([*lines, *head, *paired, ""]))
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
