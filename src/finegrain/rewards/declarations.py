"""What a reward model's head and its loss may declare, read once: nobody else asks a head or a loss for an attribute by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from finegrain.declarations import read_declarations
from finegrain.ops.action_values import Wanted
from finegrain.ops.balance import Balance
from finegrain.rewards.columns import AnswerContext
from finegrain.types import Gathered, Initialisation, Pair, Scored, Side, Summed, TokenColumns


@dataclass(frozen=True, kw_only=True)
class HeadDeclarations:
    """What a head declares. Outputs are (B, T, K), 0 off the mask; masks are (B, T)."""

    outputs: int
    """K, the numbers per token; every head has it."""
    readout: Callable[[Float[Tensor, "B T"], Bool[Tensor, "B T"]], Float[Tensor, " B"]]
    """(token scores, mask) -> the answers' scores; every head has it."""
    tokens: Callable[[Float[Tensor, "B T K"]], Scored]
    """(outputs) -> token scores (B, T), with std and members where they are known; every head has it."""
    stock: Callable[[Float[Tensor, "K H"]], Float[Tensor, "L H"]]
    """(weight) -> the rows of the stock classification head of L labels that holds the mean; every head has it."""
    read_positions: Callable[[Side], Bool[Tensor, "B T"]] | None = None
    """(side) -> the tokens at which it reads an answer, e.g. ends of segments; None: all of them, or the last."""
    reweight_outputs: Callable[[Float[Tensor, "B T K"], Bool[Tensor, "B T"]], Float[Tensor, "B T K2"]] | None = None
    """(outputs, mask) -> outputs weighted against one another over the whole answer, for `tokens`."""
    answer: Callable[[Float[Tensor, "B T K"], Bool[Tensor, "B T"]], Scored] | None = None
    """(outputs, mask) -> the answers' scores (B,), where they are no readout of the token scores."""
    reads_whole_answer: bool = False
    """Whether a token's score depends on later tokens; then no prefix, and no stock classifier, has it."""
    reads_entropy: bool = False
    """Whether `prepare` asks the frozen start model for entropies."""
    token_columns: tuple[str, ...] = ()
    """Fields of a `Side` that `prepare` fills."""
    prepare: Callable[[AnswerContext], Mapping[str, TokenColumns]] | None = None
    """(answers) -> per-token columns by role, made before training, e.g. segment ids."""
    module: Callable[[int, torch.Generator], nn.Module] | None = None
    """(hidden size, generator) -> the head's own module; None: a linear map without bias."""
    loss_kind: type = object
    """Class of the losses that fit every part of the head."""
    fitted: Callable[[list[Side]], dict[str, Any]] | None = None
    """(held-out sides) -> what the head fits on them after training, for `reward_head.json`."""
    facts: Callable[[Float[Tensor, "B T K"], Bool[Tensor, "B T"]], dict[str, Tensor]] | None = None
    """(outputs, mask) -> numbers (B,) by name that are logged of every answer as `head/<name>`."""
    check: Callable[[Mapping[str, float]], None] | None = None
    """(means of its facts over held-out answers) -> nothing; raises ModelError for a head that learnt nothing."""
    attributes: Callable[[Float[Tensor, "B T K"], Bool[Tensor, "B T"]], Mapping[str, Float[Tensor, " B"]]] | None = None
    """(outputs, mask) -> ratings (B,) by attribute that are written beside the score."""
    token_aspects: Callable[[Float[Tensor, "B T K"]], Mapping[str, Float[Tensor, "B T"]]] | None = None
    """(outputs) -> token scores (B, T) by aspect, of a head that has an output for each."""
    rows: Callable[[Float[Tensor, "K H"]], Float[Tensor, "M H"]] | None = None
    """(weight) -> the row of each member's mean, for a posterior over the weights."""


@dataclass(frozen=True, kw_only=True)
class LossDeclarations:
    """What a loss of reward models declares. Functions that take the head get the settings object of the head."""

    roles: tuple[str, ...]
    """Sides that take part; every loss has it."""
    needs: frozenset[str] = frozenset()
    """What it reads beside the head's outputs, as an objective's `needs`."""
    shape: str | None = None
    """Name of the `data.records.Shape` it trains on, where its roles and needs do not say it."""
    head_kind: type | tuple[type, ...] = object
    """Class, or classes, of the heads that it fits."""
    token_columns: tuple[str, ...] = ()
    """Fields of a `Side` that `prepare` fills."""
    prepare: Callable[[Any, AnswerContext], Mapping[str, TokenColumns]] | None = None
    """(head, answers) -> per-token columns by role, made before training, e.g. changed tokens."""
    row_columns: Callable[[Any, Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    """(head, numbers of the rows (N,) by name) -> numbers (N,) that it makes of them before training."""
    reads_targets: bool = False
    """Whether it learns a stage-1 reward: the reward model that the run starts from scores the rows first."""
    frozen_backbone: bool = False
    """Whether the model stays as it is, and only the head trains."""
    statistics: Callable[[Pair], Mapping[str, Summed | Gathered]] | None = None
    """(pair) -> what it reads of the whole optimiser step, as an objective's `statistics`."""
    make_modules: Callable[[int, torch.Generator], Mapping[str, nn.Module]] | None = None
    """(hidden size, generator) -> modules by name that train beside model and head, in `pair.modules`."""
    balanced: Balance | None = None
    """Terms that are weighted as one against the others; None: every term has the weight it is given."""
    start: Callable[[Any], Initialisation | None] | None = None
    """(head) -> where head and tables begin, found in the first step's rows."""
    action_value: Callable[[Any], Wanted | None] | None = None
    """(head) -> how the Q-values that it reads are made of logits; None: it reads none."""
    measures: Callable[[Any, Pair], Mapping[str, Float[Tensor, " B"]]] | None = None
    """(head, pair) -> numbers (B,) by name of held-out rows, NaN where a row has none; reported as `eval_<name>`."""
    proportion_metrics: frozenset[str] = frozenset()
    """Names of those `measures` that lie in [0, 1] and get Wilson's interval."""
    results: Mapping[str, bool] = field(default_factory=dict)
    """Held-out results that say which of two models is better, by name; True: more is better."""
    calibrate: bool = False
    """Whether something is fitted on held-out rows, which there must then be."""


def read_head(head: Any) -> HeadDeclarations:
    """The declarations of a head; raises UsageError for a public attribute that is none."""
    return HeadDeclarations(**read_declarations(head, HeadDeclarations, "head"))


def read_loss(loss: Any) -> LossDeclarations:
    """The declarations of a loss; raises UsageError for a public attribute that is none."""
    return LossDeclarations(**read_declarations(loss, LossDeclarations, "loss"))
