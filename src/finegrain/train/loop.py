"""The training loop: one optimiser step over any split of its rows into micro-batches and ranks.

A step is: statistics (a pass without gradient, where the objective declares them), denominators (global counts, known
before the backward), gradients (micro-batches without synchronisation, then one sum over ranks), update. Every mean is a
global sum over a global count, so results do not depend on the split but for round-off.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from finegrain.errors import NonFiniteError
from finegrain.models.score import Precision
from finegrain.models.scorer import Request, Scorer, causal_lm
from finegrain.train.balance import TABLE, TwoParts
from finegrain.train.batches import Step
from finegrain.train.collate import Batch, TrainingSet, collate
from finegrain.train.contract import Contract, as_terms
from finegrain.train.distributed import broadcast_names, gather_by_position, rank, sum_gradients, sum_named, sum_tensor, sum_wide
from finegrain.train.optim import FACTOR, Optim, learning_rate
from finegrain.train.sharding import clip_gradients, pad_micro_batches, replicated
from finegrain.train.tally import TINY, Measures, Metrics, Tally, to_host, total
from finegrain.types import Gathered, Pair, Side, Summed, Terms

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
            values = batch.zeros(self.dtype, self.contract.outputs, width)
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
    for name in sorted(trainer.state):
        table = trainer.state[name]
        trainer.state[name] = table + sum_tensor(added.get(name, torch.zeros_like(table)).to(table.dtype))
    return {"step": step.index + 1, "epoch": round(step.epoch, 6), "learning_rate": rate, "grad_norm": norm, **logged}


def _take_gradient(trainer: Trainer, step: Step, tally: Tally) -> dict[str, Tensor]:
    """This rank's gradient of the step where the parameters stand; what it saw goes to the tally, additions to tables come back."""
    statistics = step_statistics(trainer, step)
    batches = trainer.batches(step, trainer.contract.roles)
    counts = _denominators(trainer, batches, statistics)
    parts = _two_parts(trainer, step)
    added: dict[str, Tensor] = {}
    for batch in pad_micro_batches(trainer.scorer, step, batches):
        pair = trainer.pair(batch, statistics, scored=True)
        terms = as_terms(trainer.contract.objective(pair), pair)
        _backward(trainer, pair, terms, counts, parts)
        seen = detached(pair)
        tally.note_terms(terms, counts, batch.rows, batch.tokens, frozenset() if parts is None else parts.bound)
        tally.note_metrics(trainer.metrics(seen))
        if trainer.contract.after_step is not None:
            for name, value in trainer.contract.after_step(trainer.state, seen).items():
                added[name] = added.get(name, torch.zeros_like(value)) + value.detach()
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
    found = _reduced(trainer, step, start.statistics, trainer.contract.roles)
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


def detached(pair: Pair) -> Pair:
    """The pair without its graph, for metrics and tables."""
    return replace(pair, sides={role: _detached_side(side) for role, side in pair.sides.items()})


def _detached_side(side: Side) -> Side:
    return replace(
        side,
        logp=side.logp.detach(),
        prompt_logp=_cut(side.prompt_logp),
        entropy=_cut(side.entropy),
        kl=_cut(side.kl),
        reference_kl=_cut(side.reference_kl),
        outputs=_cut(side.outputs),
        features=_cut(side.features),
        q=_cut(side.q),
        q_logp=_cut(side.q_logp),
    )


def _cut(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


def step_statistics(trainer: Trainer, step: Step) -> dict[str, Tensor]:
    """The objective's statistics over the whole step and all ranks, without gradient."""
    declared = trainer.contract.statistics
    return {} if declared is None else _reduced(trainer, step, declared, trainer.contract.statistic_roles)


def _reduced(trainer: Trainer, step: Step, declared: Callable[[Pair], Mapping[str, Summed | Gathered]], roles: Sequence[str]) -> dict[str, Tensor]:
    """Statistics of the step's rows over all micro-batches and ranks."""
    summed: dict[str, Tensor] = {}
    gathered: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for batch in pad_micro_batches(trainer.scorer, step, trainer.batches(step, roles)):
            for name, statistic in declared(trainer.pair(batch, {}, scored=True)).items():
                if isinstance(statistic, Gathered):
                    gathered.setdefault(name, []).append(statistic.value)
                else:
                    summed[name] = summed.get(name, torch.zeros_like(statistic.value)) + statistic.value
    device = trainer.scorer.device
    positions = own_positions(step)
    zero = torch.zeros((), dtype=trainer.dtype, device=device)
    reduced = {}
    for name in broadcast_names(summed, device):
        reduced[name] = sum_wide(summed.get(name, zero))
    for name in broadcast_names(gathered, device):
        own = torch.cat(gathered[name]) if name in gathered else zero[None][:0]
        reduced[name] = gather_by_position(own, positions, len(step.rows), trainer.dtype)
    return reduced


def own_positions(step: Step) -> list[int]:
    """Places of this rank's rows among those of the step, in the order of its micro-batches."""
    return [position for part in step.micro[rank()] for position in part]


def _denominators(trainer: Trainer, batches: Sequence[Batch], statistics: Mapping[str, Tensor]) -> dict[str, float]:
    """Global count of every term, from masks, weights and columns alone."""
    names: list[str] = []
    counts: list[Tensor] = []
    with torch.no_grad():
        for batch in batches:
            pair = trainer.pair(batch, statistics, scored=False)
            for name, term in as_terms(trainer.contract.objective(pair), pair).items():
                names.append(name)
                counts.append(term.count)
    totals: dict[str, float] = {}
    for name, count in zip(names, to_host(counts), strict=True):
        totals[name] = totals.get(name, 0.0) + total(count)
    return sum_named(totals, trainer.scorer.device)


def _backward(trainer: Trainer, pair: Pair, terms: Terms, counts: Mapping[str, float], parts: TwoParts | None) -> None:
    """Add this micro-batch's share of the gradient of sum over terms of coefficient * sum(value) / count."""
    rule = trainer.contract.gradient
    if parts is not None:
        wanted = {name: term for name, term in terms.items() if term.coefficient}
        ranking, bound = ({name: term for name, term in wanted.items() if (name in parts.bound) is is_bound} for is_bound in (False, True))
        parts.backward(_loss(ranking, counts), _loss(bound, counts))
        return
    if rule is None:
        loss = _loss(terms, counts)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return
    parameters = trainer.parameters()
    (count,) = counts.values()
    for parameter, gradient in zip(parameters, rule(pair, parameters), strict=True):
        share = gradient / max(count, TINY)
        parameter.grad = share if parameter.grad is None else parameter.grad + share


def _loss(terms: Terms, counts: Mapping[str, float]) -> Tensor:
    """Sum over terms of coefficient * sum(value) / count; 0 without any."""
    parts = [term.coefficient / max(counts[name], TINY) * term.value.sum() for name, term in terms.items()]
    return torch.stack(parts).sum() if parts else torch.zeros(())


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
