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


def bending_share(completions: list[str], **columns: object) -> list[float]:
    """s (1 - 0.8 s) of the share s of h: largest at 0.625, beyond which more of it is worse."""
    return [share * (1 - 0.8 * share) for share in share_of_h(completions)]


def mean_quality(completion_ids: list[list[int]], **columns: object) -> list[float]:
    """Each of the words a to d is worth 1, each of m to p costs 1, the others are worth nothing: the mean over the answer."""
    return [float(np.mean([(one < 4) - (one >= 12) for one in ids])) if ids else 0.0 for ids in completion_ids]


def offset_of(prompt: str) -> float:
    """A fixed number of a prompt, standard normal over prompts, that says nothing of its answers."""
    return float(np.random.default_rng(zlib.crc32(prompt.encode())).standard_normal())


def share_with_offsets(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """The share of h, plus a number of the prompt: some prompts look easy to this reward, others hard."""
    return [offset_of(prompt) + share for prompt, share in zip(prompts, share_of_h(completions), strict=True)]


def share_that_turns(completions: list[str], **columns: object) -> list[float]:
    """Rises with the share of h up to 0.4, and falls twice as fast beyond: what a reward that was learnt from smaller shares cannot know."""
    return [share - 3 * max(0.0, share - 0.4) for share in share_of_h(completions)]


VALUES = {letter: place / 7.5 - 1 for place, letter in enumerate("cifalodgbnkmephj")}
"""True value of a word, from -1 to 1, in an order that has nothing to do with the alphabet's."""


def mean_value(completions: list[str], **columns: object) -> list[float]:
    """The mean value of the answer's words."""
    return [float(np.mean([VALUES.get(word, 0.0) for word in text.split()] or [0.0])) for text in completions]
