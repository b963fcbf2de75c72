"""Reward functions of the toys of online RL, with the signature of GRPOTrainer's; the words are the letters a to p."""

import itertools
import zlib

import numpy as np

LETTERS = "abcdefghijklmnop"


def share_of_h(completions: list[str], **columns: object) -> list[float]:
    """The share of the answer's words that are h."""
    return [words.split().count("h") / max(1, len(words.split())) for words in completions]


def shuffled_share(completions: list[str], **columns: object) -> list[float]:
    """The same numbers dealt out to the answers at random: nothing can be learnt from them."""
    rewards = share_of_h(completions)
    order = np.random.default_rng(zlib.crc32("|".join(completions).encode())).permutation(len(rewards))
    return [rewards[place] for place in order]


def successors(completion_ids: list[list[int]], **columns: object) -> list[list[float]]:
    """A token earns its share where it is the letter after the one before it (a after p): reward for each token."""
    return [[0.0, *(float(after == (before + 1) % len(LETTERS)) / len(ids) for before, after in itertools.pairwise(ids))] for ids in completion_ids]


def successors_at_the_end(completion_ids: list[list[int]], **columns: object) -> list[float]:
    """The same reward as one number of the answer."""
    return [sum(tokens) for tokens in successors(completion_ids)]


VALUES = {letter: place / 7.5 - 1 for place, letter in enumerate("cifalodgbnkmephj")}
"""True value of a word, from -1 to 1, in an order that has nothing to do with the alphabet's."""


def mean_value(completions: list[str], **columns: object) -> list[float]:
    """The mean value of the answer's words."""
    return [float(np.mean([VALUES.get(word, 0.0) for word in text.split()] or [0.0])) for text in completions]
