"""The training loop: one optimiser step over any split of its rows into micro-batches and ranks.

A step is: statistics (a pass without gradient, where the objective declares them), denominators (global counts, known
before the backward), gradients (micro-batches without synchronisation, then one sum over ranks), update. Every mean is a
global sum over a global count, so results do not depend on the split but for round-off.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from finegrain.errors import NonFiniteError
from finegrain.models.score import Precision
from finegrain.models.scorer import Request, Scorer, causal_lm
from finegrain.ops.block_reader import BlockReader
from finegrain.train.balance import TABLE, TwoParts
from finegrain.train.batches import Step
from finegrain.train.collate import Batch, TrainingSet, collate
from finegrain.train.contract import READER, Contract, as_terms, named_terms, weighted_terms
from finegrain.train.detach import detached
from finegrain.train.distributed import gather_by_position, rank, sum_gradients, sum_named
from finegrain.train.gradients import StepGradient
from finegrain.train.optim import FACTOR, Optim, learning_rate
from finegrain.train.output_gram import output_gram
from finegrain.train.sharding import clip_gradients, pad_micro_batches, replicated
from finegrain.train.statistics import Statistics, join_statistics, own_positions, reduce_statistics
from finegrain.train.tables import new_tables
from finegrain.train.tally import Measures, Metrics, Tally, to_host, total
from finegrain.types import OUTPUT_GRAM, Pair

GradientPoint = Callable[["Trainer", int], AbstractContextManager[Measures]]
"""(trainer, step from 0) -> inside, parameters stand where the step's gradient is taken; outside, where it is applied. Logs what it yields."""


def no_displacement(trainer: "Trainer", step: int) -> AbstractContextManager[Measures]:
    """The gradient is taken where it is applied."""
    return nullcontext({})


@dataclass(frozen=True)
class Trainer:
    """Everything a step needs that does not change during a run."""

    scorer: Scorer
    contract: Contract
    data: TrainingSet
    optimizer: torch.optim.Optimizer
    optim: Optim
    precision: Precision
    metrics: Metrics
    peak_rate: float
    steps: int
    frozen: Scorer | None = None
    """The live reference, where the objective needs more than cached scalars."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """The objective's persistent tables; replaced entry by entry after each step."""
    gradient_point: GradientPoint = no_displacement

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the values an objective sees."""
        return torch.float64 if self.precision.name == "float64" else torch.float32

    def parameters(self) -> list[nn.Parameter]:
        """All trainable parameters in a fixed order: the policy's, then the method's."""
        policy = [parameter for parameter in self.scorer.parameters() if parameter.requires_grad]
        return policy + [parameter for module in self.contract.modules.values() for parameter in module.parameters()]

    def request(self) -> Request:
        """What the scorer has to compute for the objective."""
        needs = self.contract.needs
        return Request(
            "logp" in needs,
            prompts="prompt_logp" in needs,
            entropy="entropy" in needs,
            kl_against=self.frozen,
            kl="kl" in needs,
            reference_kl="reference_kl" in needs,
            action_value=self.contract.action_value,
            q_head=self.scorer.q_head,
            outputs=self.scorer.head if self.contract.outputs else None,
            features="features" in needs,
            reader=cast(BlockReader, self.contract.modules[READER]) if self.contract.reading else None,
            values=self.scorer.value_head if self.contract.values else None,
            temperature=self.contract.temperature,
        )

    def batches(self, step: Step, roles: Sequence[str]) -> list[Batch]:
        """This rank's micro-batches of a step."""
        return [
            collate(self.data, [step.rows[position] for position in part], roles, positions=part, device=self.scorer.device)
            for part in step.micro[rank()]
        ]

    def pair(self, batch: Batch, statistics: Mapping[str, Tensor], *, scored: bool) -> Pair:
        """The objective's view of a micro-batch: with the policy's values, or with zeros for counting."""
        if scored:
            with self.precision.autocast():
                values = self.scorer(batch.groups, self.request())
        else:
            width = int(causal_lm(self.scorer.model).config.get_text_config().hidden_size) if "features" in self.contract.needs else 0
            values = batch.zeros(self.dtype, self.contract.outputs, width, self.contract.reading, self.contract.values)
        return batch.pair(
            values, statistics=statistics, modules=self.contract.modules, state=self.state, prompts="prompt_logp" in self.contract.needs
        )


def run_step(trainer: Trainer, step: Step) -> dict[str, int | float]:
    """One optimiser step; returns its logged numbers, equal on every rank."""
    trainer.optimizer.zero_grad(set_to_none=True)
    if step.index == 0:
        _start(trainer, step)
    tally = Tally()
    with trainer.gradient_point(trainer, step.index) as noted:
        tally.note_metrics(noted)
        added = _take_gradient(trainer, step, tally)
    logged = tally.over_ranks(trainer.scorer.device)
    if logged.pop("non_finite_rows"):
        raise NonFiniteStep("loss", _over_ranks(step, tally.bad_rows, trainer.scorer.device))
    rate = learning_rate(step.index, trainer.steps, trainer.peak_rate, trainer.optim)
    norm = _update(trainer, rate)
    if not math.isfinite(norm):
        raise NonFiniteStep("gradient", list(step.rows))
    trainer.state.update(new_tables(trainer.contract, trainer.state, added, trainer.scorer.device))
    return {"step": step.index + 1, "epoch": round(step.epoch, 6), "learning_rate": rate, "grad_norm": norm, **logged}


def _take_gradient(trainer: Trainer, step: Step, tally: Tally) -> dict[str, Tensor]:
    """This rank's gradient of the step where the parameters stand; what it saw goes to the tally, additions to tables come back."""
    statistics = step_statistics(trainer, step)
    batches = trainer.batches(step, trainer.contract.roles)
    counts = _denominators(trainer, batches, statistics)
    parts = _two_parts(trainer, step)
    gradient = StepGradient(trainer.parameters(), counts, trainer.contract.gradient, parts)
    added: dict[str, Tensor] = {}
    for batch in pad_micro_batches(trainer.scorer, step, batches):
        pair = trainer.pair(batch, statistics, scored=True)
        given = named_terms(trainer.contract.objective(pair))
        terms = weighted_terms(given, pair)
        gradient.add(pair, terms, given)
        seen = detached(pair)
        tally.note_terms(terms, counts, batch.rows, batch.tokens, frozenset() if parts is None else parts.bound)
        tally.note_metrics(trainer.metrics(seen))
        if trainer.contract.after_step is not None:
            for name, value in trainer.contract.after_step(trainer.state, seen).items():
                added[name] = added.get(name, torch.zeros_like(value)) + value.detach()
    gradient.finish(trainer.scorer.device)
    if parts is not None:
        noted = parts.finish()
        tally.note_sums(noted)
        tally.weigh_bound(noted[TABLE][0])
    return added


def _start(trainer: Trainer, step: Step) -> None:
    """Let the objective put its head and tables where the first step's rows want them, before anything has trained."""
    start = trainer.contract.start
    if start is None:
        return
    assert trainer.scorer.head is not None
    found = _reduced(trainer, step, start.statistics, trainer.contract.roles, {})
    trainer.state.update({name: table.to(trainer.state[name]) for name, table in start.settle(found, trainer.scorer.head).items()})


def _two_parts(trainer: Trainer, step: Step) -> TwoParts | None:
    """The gradient of a step whose objective weighs some of its terms as one."""
    if trainer.contract.balanced is None:
        return None
    trained = trainer.parameters()
    own = {id(parameter) for parameter in trainer.scorer.model.parameters()}
    backbone, heads = [p for p in trained if id(p) in own], [p for p in trained if id(p) not in own]
    return TwoParts(trainer.contract.balanced, trainer.state, step.index, backbone, heads)


class NonFiniteStep(NonFiniteError):
    """A loss or gradient of a step that is NaN or infinite, and the rows (places in the training set) it came from."""

    def __init__(self, what: str, rows: list[int]) -> None:
        super().__init__(f"the {what} is not finite; rows {rows[:20]}")
        self.what, self.rows = what, rows


def _over_ranks(step: Step, rows: list[int], device: torch.device) -> list[int]:
    """The rows that any rank found, in the order of the step."""
    positions = own_positions(step)
    flags = torch.tensor([float(step.rows[position] in rows) for position in positions], device=device)
    everywhere = gather_by_position(flags, positions, len(step.rows))
    return [row for row, flag in zip(step.rows, everywhere.tolist(), strict=True) if flag]


def step_statistics(trainer: Trainer, step: Step) -> dict[str, Tensor]:
    """The objective's statistics over the whole step and all ranks, without gradient: those of columns first, which need no pass."""
    contract = trainer.contract
    known: dict[str, Tensor] = {}
    if contract.column_statistics is not None:
        known = _reduced(trainer, step, contract.column_statistics, contract.roles, {}, scored=False)
    if contract.output_slopes is not None:
        view = lambda batch, values: batch.pair(values, statistics=known, modules=contract.modules, state=trainer.state)
        batches = pad_micro_batches(trainer.scorer, step, trainer.batches(step, contract.roles))
        known = {**known, OUTPUT_GRAM: output_gram(trainer.scorer, batches, contract.output_slopes, view, trainer.precision, contract.temperature)}
    if contract.statistics is None:
        return known
    found = _reduced(trainer, step, contract.statistics, contract.statistic_roles, known)
    return join_statistics(contract.name, known, found)


def _reduced(
    trainer: Trainer, step: Step, declared: Statistics, roles: Sequence[str], known: Mapping[str, Tensor], *, scored: bool = True
) -> dict[str, Tensor]:
    """Statistics of the step's rows over all micro-batches and ranks; `known` are those that stand already."""
    batches = trainer.batches(step, roles)
    through = pad_micro_batches(trainer.scorer, step, batches) if scored else iter(batches)
    pairs = (trainer.pair(batch, known, scored=scored) for batch in through)
    return reduce_statistics(declared, pairs, step, trainer.scorer.device, trainer.dtype)


def _denominators(trainer: Trainer, batches: Sequence[Batch], statistics: Mapping[str, Tensor]) -> dict[str, float]:
    """Global count of every term, from masks, weights and columns alone."""
    names: list[str] = []
    counts: list[Tensor] = []
    with torch.no_grad():
        for batch in batches:
            pair = trainer.pair(batch, statistics, scored=False)
            for name, term in as_terms(trainer.contract.objective(pair), pair).items():
                if not term.late:
                    names.append(name)
                    counts.append(term.count)
    totals: dict[str, float] = {}
    for name, count in zip(names, to_host(counts), strict=True):
        totals[name] = totals.get(name, 0.0) + total(count)
    return sum_named(totals, trainer.scorer.device)


def _update(trainer: Trainer, rate: float) -> float:
    """Sum gradients over ranks, clip, step; returns the gradient norm before clipping."""
    parameters = trainer.parameters()
    sum_gradients(replicated(parameters))
    norm = clip_gradients(parameters, trainer.optim.max_grad_norm or math.inf)
    if math.isfinite(norm):
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate * group.get(FACTOR, 1.0)
        trainer.optimizer.step()
    return norm
