"""Where the steps of a run come from: a plan over fixed rows, or a source that makes rows while the run goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from finegrain.train.batches import Plan, Step
from finegrain.train.loop import Trainer


class Taken(NamedTuple):
    """A step that is to be taken."""

    trainer: Trainer
    """The run's, with the rows of this step."""
    step: Step
    facts: Mapping[str, Any] = {}
    """Numbers for its logged line that the source knows, e.g. of the answers it sampled."""
    beside: Mapping[str, Trainer] = {}
    """Trainers of other models that take the same step, by the prefix of their logged numbers, e.g. a separate critic."""


class SourceState(NamedTuple):
    """What a source needs to go on, for a checkpoint."""

    tensors: Mapping[str, Tensor] = {}
    facts: Mapping[str, Any] = {}


@runtime_checkable
class StepSource(Protocol):
    """Gives the steps of a run in their order. Every process has one, and all give the same steps."""

    def __len__(self) -> int:
        """How many steps there are, those that will be skipped included: the learning rate's schedule has as many."""

    def at(self, trainer: Trainer, index: int) -> Taken | None:
        """The step number `index`; None where it is skipped."""

    def note(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the step just taken logged, by which later ones may be skipped; returns further numbers for the line."""

    def beside(self) -> Mapping[str, Trainer]:
        """The trainers of other models, for checkpoints."""

    def state(self) -> SourceState:
        """What it needs to go on after the step just taken."""

    def restore(self, state: SourceState, done: int) -> None:
        """Go on after `done` steps."""


@dataclass(frozen=True)
class Planned:
    """The steps of a plan over the trainer's own rows: nothing changes, and nothing is to be remembered."""

    plan: Plan

    def __len__(self) -> int:
        return len(self.plan)

    def at(self, trainer: Trainer, index: int) -> Taken:
        """As planned."""
        return Taken(trainer, self.plan.step(index))

    def note(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        """Nothing follows from it."""
        return {}

    def beside(self) -> Mapping[str, Trainer]:
        """None."""
        return {}

    def state(self) -> SourceState:
        """Nothing."""
        return SourceState()

    def restore(self, state: SourceState, done: int) -> None:
        """Nothing to do."""
