"""What an objective may declare: everyone asks this record, and nobody the objective; `read_contract` fills it in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finegrain.ops.action_values import Wanted
from finegrain.ops.balance import Balance
from finegrain.ops.reward_weight import RewardWeight
from finegrain.rewards.columns import AnswerContext, StageContext
from finegrain.types import LABEL_WEIGHTS, Gathered, Initialisation, Objective, Pair, RowLoss, Summed, Term, Terms, TokenColumns, WeightMeaning

NEEDS = frozenset({"logp", "reference", "prompt_logp", "entropy", "kl", "reference_kl", "reward", "label", "features", "sampled"})

LIVE = frozenset({"kl", "reference_kl"})
"""Needs that a cached number per token does not answer: the reference runs beside the policy."""

DIVERGED = -100.0
"""A run of an objective without a lower bound stops where the loss of a step falls below this [choice]."""

READER = "reader"
"""Name of the module that reads the reference's hidden states, among the contract's modules."""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """An objective and its declarations, with defaults filled in."""

    objective: Objective
    """The objective itself: a callable of a `Pair`."""
    wraps: Any = None
    """An objective that it calls: its declarations count beside the wrapper's own."""
    roles: tuple[str, ...] = ("chosen", "rejected")
    """Sides that take part in the gradient pass."""
    needs: frozenset[str] = frozenset({"reference"})
    """What it reads of the sides: logp, reference, prompt_logp, entropy, kl, reference_kl, reward, label, features, sampled."""
    shape: str | None = None
    """Name of the `data.records.Shape` it trains on, where its roles and needs do not say it."""
    beta: float = 1.0
    """What turns its log-ratios into the rewards that are logged."""
    weights: frozenset[WeightMeaning] = LABEL_WEIGHTS
    """What the token weights of a credit may mean, for the objective to multiply by them."""
    learning_rate: float = 1e-6
    """The default rate of full fine-tuning at the reference width."""
    embedding_factor: float = 1.0
    """The default rate of input embeddings over that of the rest, up to a ceiling."""
    statistics: Callable[[Pair], Mapping[str, Summed | Gathered]] | None = None
    """(pair) -> what it reads of the whole optimiser step, `Summed` or `Gathered` by name, in `pair.statistics`."""
    column_statistics: Callable[[Pair], Mapping[str, Summed | Gathered]] | None = None
    """The same of masks, weights and columns alone, e.g. rows per annotator: they cost no pass over the rows."""
    statistic_roles: tuple[str, ...] = ()
    """Sides that `statistics` reads, by default its roles; empty where there are none."""
    output_slopes: Callable[[Pair], Tensor] | None = None
    """(pair) -> (B, T, n) slopes of n losses by the tokens' log-probabilities: `statistics` gets inner products of their output-layer gradients."""
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    """() -> modules by name that train beside the model, in `pair.modules`."""
    make_modules: Callable[[int, torch.Generator], Mapping[str, nn.Module]] | None = None
    """(hidden size, generator) -> the same for the width of the model."""
    reading: int = 0
    """How many numbers per token a module of its own makes of the reference's hidden states, in `Side.reading`; 0: it reads none."""
    make_reader: Callable[[int, int, torch.Generator], nn.Module] | None = None
    """(blocks, hidden size, generator) -> that module, an `ops.block_reader.BlockReader`, which trains beside the model."""
    module_decay: float = 0.0
    """Weight decay of all parameters of its modules."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """() -> tables by name that steps carry on, in `pair.state`; checkpoints keep them."""
    make_state: Callable[[Mapping[str, int]], Mapping[str, Tensor]] | None = None
    """(numbers of texts by column of `categories`) -> the same, for tables of a place per text."""
    after_step: Callable[[Mapping[str, Tensor], Pair], Mapping[str, Tensor]] | None = None
    """(state, the step's rows of this rank with detached values) -> named sums over all ranks, added to the state without `update_state`."""
    update_state: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    """(state, the sums of `after_step` over the whole step and all ranks) -> the tables that change, as they are from now on."""
    start: Initialisation | None = None
    """What the method finds in the first step's rows, before anything has trained."""
    gradient: Callable[[Pair, Mapping[str, RowLoss], list[nn.Parameter]], list[Tensor]] | None = None
    """(pair, rows' losses by term, parameters) -> the gradient of the sum of share * value, in place of its backward pass."""
    gradient_cost: str = ""
    """What such a rule costs beside one backward pass, in words that the run says; every rule has it."""
    unbounded: str = ""
    """Why its loss has no lower bound, in words that a run says; it stops where the loss of a step falls below -100. Empty: it has one."""
    balanced: Balance | None = None
    """Terms that are weighted as one against the others; None: every term has the weight it is given."""
    outputs: int = 0
    """How many numbers per token the objective reads from a head on the hidden states; 0: it needs no head."""
    values: int = 0
    """How many value estimates it reads before each token, from a head of its own; 0: it needs none."""
    temperature: float = 1.0
    """What its log-probabilities divide logits by: that at which answers were sampled."""
    make_head: Callable[[int, torch.Generator], nn.Module] | None = None
    """(hidden size, generator) -> the head's own module; None: a linear map without bias."""
    action_value: Wanted | None = None
    """How the Q-values that the objective reads are made of logits; None: it reads none."""
    reward_head: str | None = None
    """Name of the head of `finegrain reward` that says what the outputs of a policy mean, for `finegrain score`; None: they are no reward."""
    reward_weight: RewardWeight | None = None
    """What multiplies a token's reward, where there is a `reward_head`."""
    columns: tuple[str, ...] = ()
    """Numbers of the rows that it reads in `pair.columns`; data without one are an error."""
    assumed: Mapping[str, float] = field(default_factory=dict)
    """What a number of `columns` is in rows that lack it, by name; such rows are counted."""
    categories: tuple[str, ...] = ()
    """Text columns of the data that it reads as numbers 0, 1, ... in `pair.columns`; `run.json` keeps the texts."""
    measures: Callable[[Pair], Terms] | None = None
    """(pair) -> numbers of the rows by name that every step and evaluation log, as sum of values over sum of counts, and no loss reads."""
    held_out_loss: Callable[[Pair], Tensor | Terms] | None = None
    """(pair) -> the loss of held-out rows, as `__call__` gives it, where the training loss does not say which model is better; None: that one."""
    stage: Callable[[StageContext], Mapping[str, np.ndarray]] | None = None
    """(context) -> numbers (N,) of the rows by name, made before training of prompt states, sampled answers and rewards; its seconds count."""
    made: tuple[str, ...] = ()
    """Numbers of the rows that it reads in `pair.columns` and that its `stage` or `row_columns` makes; data with one of their own are an error."""
    sample_by: str | None = None
    """Column, of the data or made by `row_columns` or `stage`, whose numbers say how often a row is drawn; None: every row once an epoch."""
    token_columns: tuple[str, ...] = ()
    """Fields of a `Side` that `prepare` fills; a credit beside it may fill others."""
    prepare: Callable[[AnswerContext], Mapping[str, TokenColumns]] | None = None
    """(answers) -> per-token columns by role that it makes of them before training."""
    row_columns: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    """(numbers of the rows (N,) by name) -> numbers (N,) that it makes of them before training."""
    frozen_backbone: bool = False
    """Whether the model stays as it is, and only the head and modules beside it train."""
    frozen: bool = False
    """Whether the head reads features of the answers' last tokens that are computed once, before training."""
    loss: Any = None
    """The loss of a reward model, where the objective is a head with a loss; messages name it."""

    @property
    def name(self) -> str:
        """Class of the method, for messages."""
        return type(self.objective if self.loss is None else self.loss).__name__

    @property
    def live_reference(self) -> bool:
        """Whether the reference runs beside the policy."""
        return bool(self.needs & LIVE or self.reading)

    def sized(self, blocks: int, width: int, seed: int) -> "Contract":
        """The contract with the modules that it makes for a model of so many blocks and this width, drawn by their own seed."""
        made = {} if self.make_modules is None else dict(self.make_modules(width, torch.Generator().manual_seed(seed)))
        if self.make_reader is not None and self.reading:
            made[READER] = self.make_reader(blocks, width, torch.Generator().manual_seed(seed))
        return replace(self, modules={**self.modules, **made}) if made else self

    @property
    def all_roles(self) -> tuple[str, ...]:
        """Every side any pass reads."""
        return self.roles + tuple(role for role in self.statistic_roles if role not in self.roles)


def named_terms(result: Tensor | Terms) -> Terms:
    """Terms of whatever an objective returned."""
    return result if isinstance(result, dict) else {"loss": Term(result, torch.ones_like(result))}


def weighted_terms(terms: Terms, pair: Pair) -> Terms:
    """The data's `weight` column makes every mean a weighted mean."""
    weight = pair.columns.get("weight")
    if weight is None:
        return terms
    return {name: replace(term, value=term.value * weight, count=term.count * weight) for name, term in terms.items()}


def as_terms(result: Tensor | Terms, pair: Pair) -> Terms:
    """Both: the terms of whatever an objective returned, under the weights of the rows."""
    return weighted_terms(named_terms(result), pair)
