"""What a signal's numbers mean, so that combinations that mean nothing stop with the reason before a model is loaded.

Source: ours (docs/methods/compose.md).
Deviations: not from a paper.
"""

from enum import Enum
from typing import NamedTuple


class Direction(Enum):
    """What the sign and the order of a signal's values say."""

    ZERO = "above zero is good, below zero bad"
    ORDER = "more is better, but the zero is arbitrary"
    NONE = "large is conspicuous, neither good nor bad"


class SignalFacts(NamedTuple):
    """What is known of a signal before it is read."""

    name: str
    """As on the command line."""
    direction: Direction
    additive: bool = False
    """Whether the values of an answer's tokens add up to a reward of the answer (or to its change along the answer)."""
    uncertain: bool = False
    """Whether values may come with a standard deviation or several members."""
    takes_scorer: bool = False
    """Whether it reads the checkpoints of --credit.scorer."""
    needs_scorer: bool = False
    """Whether it reads nothing else, and is empty without them."""
    varies: bool = True
    """Whether values differ within an answer."""
