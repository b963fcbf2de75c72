"""How uncertain the difference of two rewards remains, given which pairs were compared: compares topologies of data.

Source: Qiu et al. 2024, https://arxiv.org/abs/2402.10184, section 4 (inference distance, structure of E_IB).
Deviations: the Gaussian form of their network, our own derivation [OURS]: prior r ~ N(0, K), comparisons z = r_i - r_j + noise.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def prefix_kernel(paths: Int[np.ndarray, "N D"], level_variances: Sequence[float]) -> Float[np.ndarray, "N N"]:
    """K: prior covariance of rewards; leaves share the variance of every level on which their paths agree."""
    same = np.cumprod(paths[:, None] == paths[None], axis=-1)
    return np.asarray(same @ np.asarray(level_variances), dtype=float)


def inference_distance(kernel: Float[np.ndarray, "N N"], compared: Int[np.ndarray, "P 2"], noise: float) -> Float[np.ndarray, "N N"]:
    """Posterior variance of r_i - r_j for all i, j, after the comparisons; `noise`: standard deviation of one comparison.

    With a flat prior this is noise^2 times the effective resistance of the graph of comparisons.
    """
    difference = np.zeros((len(compared), len(kernel)))
    rows = np.arange(len(compared))
    difference[rows, compared[:, 0]], difference[rows, compared[:, 1]] = 1.0, -1.0
    seen = difference @ kernel
    posterior = kernel - seen.T @ np.linalg.solve(seen @ difference.T + noise**2 * np.eye(len(compared)), seen)
    variance = np.diag(posterior)
    distance: np.ndarray = variance[:, None] + variance[None] - 2 * posterior
    return distance
