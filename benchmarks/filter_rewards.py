"""Rewards of `pf_ppo.py`, with the signature of GRPOTrainer's functions: a true score, and two rewards that tell it with errors of one size.

Words 0 to 7 are good and 8 to 15 bad; errors are drawn by the answer's words, so that the same answer has the same reward, as of a reward model.
"""

import zlib

import numpy as np

MIDDLE = 0.3
"""Below it, in absolute value, `noisy_in_the_middle` says nothing."""
EVEN = 0.2
"""Standard deviation of the errors of `noisy_evenly`: about that of the other reward on answers of eight words drawn alike."""


def true_score(completion_ids: list[list[int]], **columns: object) -> list[float]:
    """Share of good words less that of bad ones, from -1 to 1."""
    return [float(np.mean(np.where(np.asarray(ids) < 8, 1.0, -1.0))) if len(ids) else 0.0 for ids in completion_ids]


def noisy_in_the_middle(completion_ids: list[list[int]], **columns: object) -> list[float]:
    """The true score where it is far from 0, otherwise any number up to the border: ranks are right at both ends alone."""
    return [
        score if abs(score) >= MIDDLE else float(_generator(ids).uniform(-MIDDLE, MIDDLE))
        for ids, score in zip(completion_ids, true_score(completion_ids), strict=True)
    ]


def noisy_evenly(completion_ids: list[list[int]], **columns: object) -> list[float]:
    """The true score and a normal error of the same size everywhere."""
    return [score + EVEN * float(_generator(ids).standard_normal()) for ids, score in zip(completion_ids, true_score(completion_ids), strict=True)]


def _generator(ids: list[int]) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(bytes(int(one) for one in ids)))
