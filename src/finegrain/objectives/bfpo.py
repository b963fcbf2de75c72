"""Bi-factorial preference optimisation (BFPO): IPO whose target says how helpful and how safe both answers are.

    loss = (h - (g - alpha) / tau)^2,   g = (B1 s_w - s_l) / (B1 - 1)

h is the margin of summed log-ratios, chosen the more helpful answer, s_w and s_l 1 where the chosen and the rejected answer are safe.

Source: Zhang et al. 2024, https://arxiv.org/abs/2408.15313, and the authors' code.
Deviations: none in the loss; the paper's further constant B2 is 0, as in the code (memory).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, Range, Share, checked
from finegrain.errors import DataError
from finegrain.objectives.margins import log_ratio_margin
from finegrain.types import SECOND_STREAM, Pair, Term, Terms

Rows = Float[Tensor, " B"]
FLAGS = ("is_chosen_safe", "is_rejected_safe")
"""Columns: 1 where an answer is safe, 0 where it is not, or the probability of it."""
AboveOne = Annotated[float, Range(1.0, low_open=True)]


def bfpo_target(chosen_safe: Rows, rejected_safe: Rows, *, beta: float, b1: float, alpha: float) -> Rows:
    """(g - alpha) / tau: the margin, nats, that a pair with these flags is drawn to."""
    return ((b1 * chosen_safe - rejected_safe) / (b1 - 1) - alpha) / beta


def bfpo_loss(margin: Rows, target: Rows) -> Rows:
    """(margin - target)^2, both in nats; with the target 1 / (2 beta) everywhere it is summed IPO."""
    return (margin - target).square()


@dataclass(frozen=True, kw_only=True)
class RequireFlags:
    """A row without flags is an error."""

    assumed: ClassVar[Mapping[str, float]] = {}


@dataclass(frozen=True, kw_only=True)
class AssumeSafe:
    """Answers without a flag are safe, as the authors take those of UltraFeedback; the data report counts them."""

    assumed: ClassVar[Mapping[str, float]] = dict.fromkeys(FLAGS, 1.0)


@dataclass(frozen=True, kw_only=True)
@checked
class BFPO:
    """Hyper-parameters of BFPO."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    columns: ClassVar[tuple[str, ...]] = FLAGS
    learning_rate: ClassVar[float] = 5e-7
    """The authors'."""

    beta: PositiveFloat = 0.01
    """The paper's tau: targets are at most 1 / tau nats away from 0 at the default alpha and b1."""
    b1: AboveOne = 3.0
    """How much more the chosen answer's safety counts than the rejected one's."""
    alpha: Share = 0.5
    """Shift of all targets: at 0 a pair of two unsafe answers has the target 0, at 1 a pair of two safe ones."""

    unflagged: RequireFlags | AssumeSafe = field(default_factory=RequireFlags)
    """What rows without flags are: require-flags, an error; or assume-safe, for general helpful pairs."""

    @property
    def assumed(self) -> Mapping[str, float]:
        """Flags of rows that have none."""
        return self.unflagged.assumed

    def row_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Makes none; raises DataError where the chosen answer is the safer one instead of the more helpful one."""
        if SECOND_STREAM in columns:
            raise DataError(f"the data have a column {SECOND_STREAM}, which bfpo would take for the run's own; give it another name")
        if {"helpful", "harmless"} <= columns.keys():
            harmless = int(((columns["harmless"] == 1) & (columns["helpful"] == 0)).sum())
            if harmless:
                raise DataError(
                    f"bfpo reads pairs whose chosen answer is the more helpful one, and {harmless} of {len(columns['helpful'])} are ordered by "
                    "harmlessness (harmless 1, helpful 0); add --gate.harmless-order drop"
                )
        return {}

    def __call__(self, pair: Pair) -> Rows | Terms:
        """Per-row loss (B,), nats squared; with a second stream its mean and that of the first, to be added."""
        margin = log_ratio_margin(pair)
        flags = (pair.columns[name].to(margin.dtype) for name in self.columns)
        losses = bfpo_loss(margin, bfpo_target(*flags, beta=self.beta, b1=self.b1, alpha=self.alpha))
        if SECOND_STREAM not in pair.columns:
            return losses
        second = pair.columns[SECOND_STREAM].to(losses.dtype)
        return {name: Term(torch.where(own > 0, losses, 0.0), own) for name, own in (("first_stream", 1 - second), ("second_stream", second))}
