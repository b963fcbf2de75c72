"""Similarity of two rewards of the same texts, by measures that do or do not depend on scale and offset.

Source: metrics of https://arxiv.org/abs/2410.12491 as in the authors' code; distance after EPIC, Gleave et al. 2020, https://arxiv.org/abs/2006.13900.
Deviations: intervals, the distance, seed agreement and the null are ours [OURS]; distance is canonicalised by the prompt mean [choice].
"""

import math
from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from finegrain.errors import DataError
from finegrain.ops.bootstrap import Bootstrap, Statistic
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval

Rewards = Float[np.ndarray, " N"]
Prompts = Int[np.ndarray, " N"]
"""The number of each text's prompt."""
Measure = Callable[[Rewards, Rewards], float]


def pearson(a: Rewards, b: Rewards) -> float:
    """Linear correlation; NaN where one of the two is constant."""
    return float(stats.pearsonr(a, b).statistic) if _vary(a, b) else math.nan


def spearman(a: Rewards, b: Rewards) -> float:
    """Correlation of ranks, invariant under every increasing transform."""
    return float(stats.spearmanr(a, b).statistic) if _vary(a, b) else math.nan


def kendall(a: Rewards, b: Rewards) -> float:
    """Kendall's tau-b."""
    return float(stats.kendalltau(a, b).statistic) if _vary(a, b) else math.nan


def euclidean(a: Rewards, b: Rewards) -> float:
    """Root of the summed squared differences: grows with the number of texts and with the unit."""
    return float(np.linalg.norm(a - b))


def cosine(a: Rewards, b: Rewards) -> float:
    """Cosine of the angle between the two; depends on an offset."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else math.nan


def sign_accuracy(a: Rewards, b: Rewards) -> float:
    """Share of texts with the same sign in both. The zero of a recovered reward is arbitrary, and so is this number."""
    return float(((a > 0) == (b > 0)).mean())


def sign_f1(a: Rewards, b: Rewards) -> float:
    """F1 of "not above 0" (the undesired kind) under `b`, with `a` as the truth; 0 where neither has one."""
    truth, found = a <= 0, b <= 0
    return 2 * int((truth & found).sum()) / max(1, int(truth.sum() + found.sum()))


MEASURES: Mapping[str, Measure] = {
    "pearson": pearson,
    "spearman": spearman,
    "kendall": kendall,
    "euclidean": euclidean,
    "cosine": cosine,
    "sign_accuracy": sign_accuracy,
    "sign_f1": sign_f1,
}
UNIT_FREE = ("pearson", "spearman", "kendall")
"""The measures that are invariant under an offset and a positive factor."""


def compare(reference: Rewards, recovered: Float[np.ndarray, " M"], bootstrap: Bootstrap | None = None) -> dict[str, Interval]:
    """Every measure with a bootstrap interval over texts."""
    if reference.shape != recovered.shape or not (np.isfinite(reference).all() and np.isfinite(recovered).all()):
        raise DataError(f"two rewards are compared on the same texts and must be finite, got {len(reference)} and {len(recovered)} values")
    draw, together = bootstrap or Bootstrap(), np.zeros(len(reference), dtype=int)

    def on(measure: Measure) -> Statistic:
        return lambda rows: measure(reference[rows], recovered[rows])

    return {name: draw(on(measure), together) for name, measure in MEASURES.items()}


def canonicalise(rewards: Rewards, prompts: Prompts) -> Rewards:
    """The reward without what pairs cannot determine: minus its mean over the texts of each prompt, divided by the root mean square of the rest."""
    place = np.unique(prompts, return_inverse=True)[1]
    centred = rewards - (np.bincount(place, weights=rewards) / np.bincount(place))[place]
    scale = float(np.sqrt(np.square(centred).mean()))
    if scale <= 1e-12 * float(np.abs(rewards).max()):  # the rest is rounding error
        raise DataError("this reward is the same for all texts of a prompt, so it ranks nothing and has no canonical form")
    return centred / scale


def reward_distance(a: Rewards, b: Rewards, prompts: Prompts) -> float:
    """sqrt((1 - rho) / 2) of the canonical forms, rho their Pearson correlation: 0 for rewards that rank alike, up to scale, 1 for opposites."""
    correlation = float((canonicalise(a, prompts) * canonicalise(b, prompts)).mean())
    return math.sqrt(max(0.0, (1 - correlation) / 2))


def seed_agreement(members: Float[np.ndarray, "M N"], measure: Measure = spearman) -> Float[np.ndarray, "M M"]:
    """The measure between every two recovered rewards: low agreement shows that the pairs do not determine the reward."""
    table = np.eye(len(members))
    for i, j in combinations(range(len(members)), 2):
        table[i, j] = table[j, i] = measure(members[i], members[j])
    return table


def null_holds(expert: Rewards, other: Rewards) -> tuple[Interval, bool]:
    """Held-out accuracy of a reward fitted to two samples of one policy, ties half, and whether its interval contains 1/2.

    Where it does not, the fit finds differences that do not exist, and none of its results on two policies are valid.
    """
    share = wilson(0.5 + 0.5 * np.sign(expert - other))
    if share.low is None or share.high is None:
        raise DataError("the null needs held-out pairs of two samples of one policy; there are none")
    return share, share.low <= 0.5 <= share.high


def _vary(a: Rewards, b: Rewards) -> bool:
    return len(a) > 1 and bool(np.ptp(a) > 0) and bool(np.ptp(b) > 0)
