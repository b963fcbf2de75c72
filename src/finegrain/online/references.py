"""What the leash of an online run is tied to: the choices. `recipes.rollouts.references` opens them."""

from dataclasses import dataclass

from finegrain.checked import PositiveInt, Share, checked


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
    """Checkpoint folders or Hub names; the start model is one of them where fewer than two are given."""


@dataclass(frozen=True, kw_only=True)
@checked
class MovingAverage:
    """A moving average of the policy's own weights."""

    decay: Share = 0.9
    """Share of the average that stays at each update of it."""
    every: PositiveInt = 1
    """Buffers between updates."""


ReferenceChoice = StartModel | OtherModel | ModelSoup | MovingAverage
