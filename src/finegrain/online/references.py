"""What the leash of an online run is tied to: the choices. `recipes.rollouts.references` opens them."""

from dataclasses import dataclass

from finegrain.checked import NonNegativeFloat, PositiveInt, Share, checked
from finegrain.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class StartModel:
    """The model that the run starts from; of an adapter its base, or without training as it came."""


@dataclass(frozen=True, kw_only=True)
@checked
class OtherModel:
    """Another model with the same tokenizer."""

    path: str = ""
    """Checkpoint folder or Hub name."""


@dataclass(frozen=True, kw_only=True)
@checked
class ModelSoup:
    """The average of the weights of several models of one shape (SALSA)."""

    paths: tuple[str, ...] = ()
    """Checkpoint folders or Hub names; where one is given, the start model stands before it."""
    weights: tuple[NonNegativeFloat, ...] = ()
    """A weight per model, the start model's first where it is one of them, divided by their sum; by default equal ones."""

    def __post_init__(self) -> None:
        if self.weights and sum(self.weights) <= 0:
            raise UsageError("the weights of a soup are all 0; give at least one model a positive weight")


@dataclass(frozen=True, kw_only=True)
@checked
class MovingAverage:
    """A moving average of the policy's own weights."""

    decay: Share = 0.9
    """Share of the average that stays at each update of it."""
    every: PositiveInt = 1
    """Buffers between updates."""


ReferenceChoice = StartModel | OtherModel | ModelSoup | MovingAverage
