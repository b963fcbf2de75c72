"""Expected value, under one score, of the best of n answers by another score, from N scored answers without sampling; its KL to the policy.

Source: the unbiased estimator of https://arxiv.org/abs/2210.10760 (appendix), used by the over-optimisation curves of
https://arxiv.org/abs/2310.02743 and https://arxiv.org/abs/2402.13210.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from finegrain.errors import UsageError


def rank_weights(count: int, best_of: int) -> Float[np.ndarray, " N"]:
    """Probability that the i-th smallest of `count` scores is the largest of `best_of` drawn without replacement: C(i-1, n-1) / C(N, n)."""
    if not 1 <= best_of <= count:
        raise UsageError(f"best of n needs n between 1 and the number of answers, {count}; got {best_of}")
    rank = np.arange(1, count + 1)
    with np.errstate(invalid="ignore"):
        chosen = gammaln(rank) - gammaln(best_of) - gammaln(rank - best_of + 1)
    total = gammaln(count + 1) - gammaln(best_of + 1) - gammaln(count - best_of + 1)
    return np.where(rank >= best_of, np.exp(chosen - total), 0.0)


def expected_best(proxy: Float[np.ndarray, "... N"], gold: Float[np.ndarray, "... N"], best_of: int) -> Float[np.ndarray, "..."]:
    """Mean gold score of the answer that the proxy ranks first among `best_of`, over all subsets. Equal proxy scores keep their order."""
    order = np.argsort(proxy, axis=-1, kind="stable")
    return np.asarray(np.take_along_axis(gold, order, -1) @ rank_weights(proxy.shape[-1], best_of))


def kl_of_best(best_of: int) -> float:
    """KL(best of n || one draw), nats, for scores without ties: log n - (n - 1) / n."""
    return math.log(best_of) - (best_of - 1) / best_of
