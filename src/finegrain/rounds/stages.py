"""Recipes of `finegrain iterate` whose stages are runs of other commands: what a recipe is told, and the stages that it asks for.

A recipe is a frozen dataclass below `Recipe` whose `__call__(told)` is a generator: it yields one `Stage` after the other, and may look at what the
earlier ones came to. Stages that are finished are not run again, so what it yields may depend on nothing but its settings and on those results.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from finegrain.checked import PositiveInt, checked
from finegrain.errors import UsageError
from finegrain.types import Json


class Stage(NamedTuple):
    """One run of a command, or `rows` of sampled answers."""

    name: str
    """Of its folder below the run's; also how a file of settings names it."""
    command: str
    """Of finegrain; or `rows`: a method of rounds makes rows from answers of a model."""
    settings: Json
    """Those that the recipe sets, as a run.json has them; the others are those of the command line, then the command's own."""


@runtime_checkable
class StagesTold(Protocol):
    """What a recipe is told."""

    @property
    def model(self) -> str:
        """The start model."""

    @property
    def data(self) -> str:
        """The data."""

    @property
    def objective(self) -> Any:
        """The objective as JSON, where the command line names one."""

    def path(self, name: str) -> str:
        """The folder of a stage."""

    def result(self, name: str) -> Mapping[str, Any]:
        """What a finished stage's record says."""

    def trained(self, name: str) -> str:
        """The model of a finished stage, its adapter merged."""

    def sampled(self, name: str) -> str:
        """The rows that a finished stage `rows` made."""


@dataclass(frozen=True, kw_only=True)
@checked
class Recipe:
    """What all recipes are told."""

    shape: ClassVar[str] = "preference"
    """Of the data: the value of a `data.records.Shape`."""

    reward: str = ""
    """A reward model's folder or Hub name, or file.py:name; by default one is trained on the data."""
    max_new_tokens: PositiveInt = 256
    """Longest answer of online training."""
    stages: str = ""
    """JSON file with further settings, by the name of a stage or of a command: {"online": {"algorithm": {"method": "grpo"}}}."""

    def check(self) -> None:
        """Raises UsageError for settings that mean nothing together."""
        if self.reward.startswith("column:"):
            raise UsageError(f"--rounds.reward {self.reward} knows only the answers of the data, and this recipe samples others")

    def __call__(self, told: StagesTold) -> Iterator[Stage]:
        """The stages, in their order."""
        raise NotImplementedError

    def judge(self, told: StagesTold) -> str:
        """The reward: as given, or that of the stage `reward`."""
        return self.reward or told.path("reward")


def train_reward(told: StagesTold, *, name: str = "reward", data: str | None = None, **settings: Any) -> Stage:
    """A reward of whole answers from the start model, by the usual pair loss, where the settings say nothing else."""
    return Stage(name, "reward", {"model": told.model, "data": data or told.data, "head": "sequence", "loss": "bradley-terry", **settings})
