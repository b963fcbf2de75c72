"""Two token rewards that want each token for themselves (benchmarks/pama.py): the roots of the shares of two letters, the best of them a circle."""

import zlib

import numpy as np
from toy_rewards import LETTERS


def root_of_share(ids: list[int], letter: str) -> list[float]:
    """What each token adds to the root of the letter's share of the answer: the first ones earn most."""
    counts = np.cumsum(np.array(ids) == LETTERS.index(letter))
    return np.diff(np.sqrt(counts / len(ids)), prepend=0.0).tolist()  # type: ignore[no-any-return]


def root_of_h(completion_ids: list[list[int]], **columns: object) -> list[list[float]]:
    """The root of the share of h, token by token."""
    return [root_of_share(ids, "h") for ids in completion_ids]


def root_of_c(completion_ids: list[list[int]], **columns: object) -> list[list[float]]:
    """The same of c: with x the one and y the other an answer has x^2 + y^2 <= 1."""
    return [root_of_share(ids, "c") for ids in completion_ids]


def dealt(rewards: list[list[float]], completion_ids: list[list[int]]) -> list[list[float]]:
    """The same rewards for other answers."""
    order = np.random.default_rng(zlib.crc32(str(completion_ids).encode())).permutation(len(rewards))
    return [rewards[place] for place in order]


def shuffled_h(completion_ids: list[list[int]], **columns: object) -> list[list[float]]:
    """Rewards of h dealt out at random: nothing can be learnt from them."""
    return dealt(root_of_h(completion_ids), completion_ids)


def shuffled_c(completion_ids: list[list[int]], **columns: object) -> list[list[float]]:
    """The same of c."""
    return dealt(root_of_c(completion_ids), completion_ids)
