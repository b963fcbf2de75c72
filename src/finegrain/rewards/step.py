"""One score per step of an answer, read at the step's last token: the log-odds that the step is right.

Source: Lightman et al. 2023, https://arxiv.org/abs/2305.20050, section 2.6 (product or minimum over steps; section: memory).
Deviations: one output, where the paper reads the language model's own tokens for right, neutral and wrong [choice].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import checked
from finegrain.errors import DataError
from finegrain.ops.masked import masked_sum
from finegrain.ops.readout import Last, Mean, Minimum, Sum
from finegrain.ops.sequence import to_wide
from finegrain.rewards.columns import AnswerContext
from finegrain.rewards.heads import Mask, Outputs, find_segment_ends
from finegrain.types import Scored, Side, TokenColumns


@dataclass(frozen=True, kw_only=True)
class Product:
    """Log-probability that every step is right, steps taken as independent: it falls with every step, as the paper notes."""

    def __call__(self, values: Float[Tensor, "B T"], mask: Mask) -> Float[Tensor, " B"]:
        """One number per answer; values are log-odds."""
        return masked_sum(logsigmoid(torch.where(mask, to_wide(values), 0.0)), mask)


StepReadout = Product | Minimum | Mean | Last | Sum


@dataclass(frozen=True, kw_only=True)
@checked
class Step:
    """A scalar at the end of every labelled step."""

    outputs: ClassVar[int] = 1
    token_columns: ClassVar[tuple[str, ...]] = ("segment", "reward")

    readout: StepReadout = field(default_factory=Product)
    """How steps are combined to the answer's score: product, minimum, mean, last or sum (of log-odds)."""

    def prepare(self, context: AnswerContext) -> Mapping[str, TokenColumns]:
        """The step of every token, with its label as reward: 1 right, -1 wrong."""
        found = {}
        for role in context.roles:
            numbers, labels = context.labelled_steps(role)
            if context.trains and not any((own >= 0).any() for own in numbers):
                raise DataError(f"no answer of role {role!r} has a labelled step; use rows of labelled steps, or head:segment")
            found[role] = TokenColumns.of(segment=numbers, reward=labels)
        return found

    def read_positions(self, side: Side) -> Mask:
        """Ends of steps."""
        return find_segment_ends(self, side)

    def tokens(self, outputs: Outputs) -> Scored:
        """Log-odds that the step would be right if it ended at each token."""
        return Scored(outputs[..., 0])

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The given row."""
        return weight
