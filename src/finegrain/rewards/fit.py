"""A head and a loss combined to one objective, the form in which the training loop trains a reward model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from finegrain.errors import UsageError
from finegrain.ops.action_values import Wanted
from finegrain.ops.balance import Balance
from finegrain.ops.readout import Last
from finegrain.rewards.columns import AnswerContext, prepare_columns
from finegrain.rewards.declarations import HeadDeclarations, LossDeclarations, read_head, read_loss
from finegrain.rewards.heads import RewardHead
from finegrain.types import Gathered, Initialisation, Pair, Summed, Terms, TokenColumns


@runtime_checkable
class RewardLoss(Protocol):
    """A loss on a head's scores: one value per row, or terms. `declarations.LossDeclarations` lists what it may declare."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Sides that the loss reads."""

    def __call__(self, head: Any, pair: Pair) -> Float[Tensor, " B"] | Terms:
        """Loss of each row."""


@dataclass(frozen=True)
class RewardFit:
    """The objective of a reward model."""

    head: RewardHead
    loss: RewardLoss
    frozen: bool = False
    """Only the head trains, on features of last tokens that are computed once."""

    def __post_init__(self) -> None:
        if not isinstance(self.head, self._loss.head_kind):
            wanted, found = self._loss.head_kind.__name__, type(self.head).__name__
            raise UsageError(f"{type(self.loss).__name__} fits a {wanted} head, found {found}; choose that head")
        if not isinstance(self.loss, self._head.loss_kind):
            head, loss = type(self.head).__name__, type(self.loss).__name__
            raise UsageError(f"only {self._head.loss_kind.__name__} fits every part of a {head} head, found {loss}; choose that loss")
        if self.frozen:
            self._check_last_token()

    def _check_last_token(self) -> None:
        if not isinstance(self._head.readout, Last) or self._head.read_positions is not None or self._head.reads_whole_answer:
            head = type(self.head).__name__
            raise UsageError(f"--frozen keeps only the last token of every answer, but {head} reads others; use head:sequence or the readout last")
        if self.needs or self.action_value is not None or self.token_columns:
            raise UsageError(f"--frozen keeps only the last token of every answer, but {type(self.loss).__name__} reads all of them; remove --frozen")

    @cached_property
    def _head(self) -> HeadDeclarations:
        return read_head(self.head)

    @cached_property
    def _loss(self) -> LossDeclarations:
        return read_loss(self.loss)

    @property
    def learning_rate(self) -> float:
        """[choice] Between the 5e-6 of https://arxiv.org/abs/2401.06080 and the higher rates of small heads; ten times that if frozen."""
        return 1e-4 if self.frozen_backbone else 1e-5

    @property
    def embedding_factor(self) -> float:
        """[OURS] With few pairs, embeddings move far enough only at a higher rate (docs/decisions/0014); 1 where the vocabulary head is read."""
        return 1.0 if "logp" in self.needs or self.action_value is not None else 10.0

    @property
    def frozen_backbone(self) -> bool:
        """Whether only the head trains."""
        return self.frozen or self._loss.frozen_backbone

    def prepare(self, context: AnswerContext) -> dict[str, TokenColumns]:
        """Per-token columns that head or loss makes from the answers before training; {} where neither needs any."""
        return prepare_columns([self._head.prepare, self._loss.prepare], context)

    @property
    def token_columns(self) -> tuple[str, ...]:
        """Fields of a `Side` that `prepare` fills."""
        return (*self._head.token_columns, *self._loss.token_columns)

    @property
    def row_columns(self) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None:
        """(the rows' own numbers) -> numbers that the loss computes from them before training; None: it computes none."""
        make = self._loss.row_columns
        return None if make is None else partial(make, self.head)

    @property
    def make_head(self) -> Callable[[int, torch.Generator], nn.Module] | None:
        """(hidden size, generator) -> the head's own module; None: a linear map."""
        return self._head.module

    @property
    def make_modules(self) -> Callable[[int, torch.Generator], Mapping[str, nn.Module]] | None:
        """(hidden size, generator) -> modules that train beside model and head, which the loss reads; None: there are none."""
        return self._loss.make_modules

    @property
    def needs(self) -> frozenset[str]:
        """What the loss reads in addition to the head's outputs."""
        return self._loss.needs

    @property
    def statistics(self) -> Callable[[Pair], Mapping[str, Summed | Gathered]] | None:
        """What the loss reads of the whole step."""
        return self._loss.statistics

    @property
    def balanced(self) -> Balance | None:
        """Terms of the loss that share one weight."""
        return self._loss.balanced

    @property
    def start(self) -> Initialisation | None:
        """The loss's initialisation of head and tables."""
        return None if self._loss.start is None else self._loss.start(self.head)

    @property
    def action_value(self) -> Wanted | None:
        """The Q-values that the loss reads with this head."""
        return None if self._loss.action_value is None else self._loss.action_value(self.head)

    @property
    def outputs(self) -> int:
        """Number of outputs of the head per token."""
        return self._head.outputs

    @property
    def roles(self) -> tuple[str, ...]:
        """The loss's."""
        return self._loss.roles

    @property
    def shape(self) -> str | None:
        """Form of the rows that the loss trains on, where its roles do not determine it."""
        return self._loss.shape

    def __call__(self, pair: Pair) -> Float[Tensor, " B"] | Terms:
        """The loss's."""
        return self.loss(self.head, pair)
