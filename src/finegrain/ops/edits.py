"""A least edit of one token sequence into another: which tokens are kept, and which are changed on either side.

Source: Levenshtein 1966; Wagner and Fischer 1974 (insertion, deletion and substitution cost 1 each).
Deviations: of several least edits the one that rapidfuzz finds is used.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer
from rapidfuzz.distance import Levenshtein


class Edit(NamedTuple):
    """The difference of two sequences."""

    distance: int
    """Insertions, deletions and substitutions."""
    first: Bool[np.ndarray, " N"]
    """True on tokens of the first sequence that were deleted or substituted."""
    second: Bool[np.ndarray, " M"]
    """True on tokens of the second one that were inserted or substituted."""


def least_edit(first: Integer[np.ndarray, " N"], second: Integer[np.ndarray, " M"]) -> Edit:
    """The edit."""
    changed = np.zeros(len(first), dtype=bool), np.zeros(len(second), dtype=bool)
    distance = 0
    for step in Levenshtein.opcodes(first.tolist(), second.tolist()):
        if step.tag != "equal":
            changed[0][step.src_start : step.src_end] = True
            changed[1][step.dest_start : step.dest_end] = True
            distance += max(step.src_end - step.src_start, step.dest_end - step.dest_start)
    return Edit(distance, *changed)
