"""What a method of rounds is told of a round, and the rows that it makes of it.

A method is a frozen dataclass below `RoundSettings` whose `__call__(context) -> list[RoundRow]` makes the rows to train on. It names the shape
of the data that it reads and the objective that trains on its rows where the command line names none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from numpy import ndarray

from finegrain.checked import NonNegativeFloat, PositiveInt, checked
from finegrain.errors import UsageError


class Drawn(NamedTuple):
    """An answer of the round's model."""

    text: str
    """Without special tokens."""
    ids: Sequence[int]
    """The tokens as they were sampled, the end token included."""
    ended: bool
    """Whether it ended by itself; else it was cut at the largest number of tokens."""


class Given(NamedTuple):
    """The data's own answer of a role, unchanged: a conversation stays one."""

    role: str


@dataclass(frozen=True)
class RoundRow:
    """A row to train on."""

    place: int
    """Of the prompt, among those of the round."""
    answers: Mapping[str, str | Given]
    """By role, e.g. chosen and rejected: a text, or an answer of the data."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Numbers that the row keeps, e.g. rewards."""


@runtime_checkable
class RoundContext(Protocol):
    """A round before its training: N prompts, and the model as it is at the start of the round, which will be the reference."""

    @property
    def number(self) -> int:
        """1 for the first round."""

    def given(self, role: str) -> Sequence[str]:
        """(N,) the data's answers as text."""

    def sample(self, count: int, *, max_new_tokens: int, temperature: float = 1.0) -> Sequence[Sequence[Drawn]]:
        """(N, count) answers of the model; the same for the same seed, round and prompts. A run that goes on reads those sampled before."""

    def score(self, reward: str, answers: Sequence[Sequence[str]]) -> Float[ndarray, "N K"]:
        """Rewards of K texts per prompt by what `finegrain score --reward` takes; NaN where there is none."""

    def leave_out(self, reason: str) -> None:
        """Counts a prompt of which no row is made, by its reason."""

    def note(self, name: str, count: int) -> None:
        """Adds to another count of the round's record."""


@dataclass(frozen=True, kw_only=True)
@checked
class RoundSettings:
    """What all methods of rounds are told."""

    shape: ClassVar[str] = "demonstration"
    """Of the data: the value of a `data.records.Shape`."""
    objective: ClassVar[str] = "dpo"
    """What trains on the rows, where none is named."""

    count: PositiveInt = 5
    """How many rounds of sampling and training."""
    rows: Literal["split", "all"] = "split"
    """split: each round reads a part of the rows of its own, of equal size; all: each reads all of them."""
    max_new_tokens: PositiveInt = 256
    """Longest answer that is sampled; longer ones are cut there, and counted."""
    temperature: NonNegativeFloat = 1.0
    """Of sampling, from the whole vocabulary; 0 takes the most likely token."""

    def check(self) -> None:
        """Raises UsageError for settings that mean nothing together."""


@dataclass(frozen=True, kw_only=True)
@checked
class JudgedRounds(RoundSettings):
    """Of methods that score answers."""

    reward: str = ""
    """A reward model's folder or Hub name, or file.py:name; needed."""

    def check(self) -> None:
        """A reward that can score new answers."""
        if not self.reward:
            raise UsageError("this method of rounds needs a reward that scores the samples; give --rounds.reward, a reward model or file.py:name")
        if self.reward.startswith("column:"):
            raise UsageError(f"--rounds.reward {self.reward} knows only the answers of the data, and these rounds sample others")
