"""A head and a loss combined to one objective, the form in which the training loop trains a reward model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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

    def __call__(self, head: Any, pair: Pair) -> Float[Tensor, " B"] | Terms:
        """Loss of each row."""


OF_THE_LOSS = ("roles", "shape", "needs", "statistics", "make_modules", "balanced")
"""Declarations that the objective has as its loss has them."""


@dataclass(frozen=True)
class RewardFit:
    """The objective of a reward model."""

    head: RewardHead
    loss: RewardLoss
    frozen: bool = False
    """Only the head trains, on features of last tokens that are computed once."""
    outputs: int = field(init=False)
    make_head: Callable[[int, torch.Generator], nn.Module] | None = field(init=False)
    roles: tuple[str, ...] = field(init=False)
    shape: str | None = field(init=False)
    needs: frozenset[str] = field(init=False)
    statistics: Callable[[Pair], Mapping[str, Summed | Gathered]] | None = field(init=False)
    make_modules: Callable[[int, torch.Generator], Mapping[str, nn.Module]] | None = field(init=False)
    balanced: Balance | None = field(init=False)

    def __post_init__(self) -> None:
        given = {"outputs": self._head.outputs, "make_head": self._head.module}
        for name, value in (given | {name: getattr(self._loss, name) for name in OF_THE_LOSS}).items():
            object.__setattr__(self, name, value)
        kinds = self._loss.head_kind if isinstance(self._loss.head_kind, tuple) else (self._loss.head_kind,)
        if not isinstance(self.head, kinds):
            wanted, found = " or ".join(kind.__name__ for kind in kinds), type(self.head).__name__
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
        own = self._loss.prepare
        return prepare_columns([self._head.prepare, None if own is None else partial(own, self.head)], context)

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
    def start(self) -> Initialisation | None:
        """The loss's initialisation of head and tables."""
        return None if self._loss.start is None else self._loss.start(self.head)

    @property
    def action_value(self) -> Wanted | None:
        """The Q-values that the loss reads with this head."""
        return None if self._loss.action_value is None else self._loss.action_value(self.head)

    def __call__(self, pair: Pair) -> Float[Tensor, " B"] | Terms:
        """The loss's."""
        return self.loss(self.head, pair)
