"""Rows that belong together: several pairs made from one row of the data are one observation, not several."""

import numpy as np
from jaxtyping import Float

FEWEST_ROWS = 10
"""With fewer rows no verdict rests on an interval of shares or of a bootstrap, because such intervals are too narrow [choice]."""


def group_means(values: np.ndarray, groups: np.ndarray) -> Float[np.ndarray, " G"]:
    """Mean of the values of each group, in the order of the group ids."""
    _, places = np.unique(groups, return_inverse=True)
    return np.bincount(places, weights=np.asarray(values, dtype=np.float64)) / np.bincount(places)
