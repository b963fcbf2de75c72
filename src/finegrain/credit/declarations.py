"""What a credit may declare, read once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from finegrain.credit.context import CreditContext
from finegrain.declarations import read_declarations
from finegrain.types import TokenColumns, WeightMeaning


@dataclass(frozen=True, kw_only=True)
class CreditDeclarations:
    """What a credit declares."""

    prepare: Callable[[CreditContext], Mapping[str, TokenColumns]]
    """(context) -> per-token columns by role, for every answer of the data; every credit has it."""
    weight_means: WeightMeaning = WeightMeaning.MULTIPLIER
    """What its token weights say; an objective takes those that it can multiply by."""
    weight_choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """By setting, the choices that decide what its weights say, each with its own `weight_means`: named where another would fit an objective."""
    check: Callable[[], None] | None = None
    """() -> nothing; raises UsageError for settings that mean nothing together, before a model is loaded."""
    scorer: str | None = None
    """Checkpoints, separated by commas, that it asks for token scores; a run keeps apart from their folders."""


def read_credit(credit: Any) -> CreditDeclarations:
    """The declarations of a credit; raises UsageError for a public attribute that is none."""
    return CreditDeclarations(**read_declarations(credit, CreditDeclarations, "credit"))
