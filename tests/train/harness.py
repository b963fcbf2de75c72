"""Trainers of tiny models on ragged rows, for laws that hold whatever the split into micro-batches and processes."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from finegrain.data.records import Example
from finegrain.data.store import collect
from finegrain.models.reference import copy_reference
from finegrain.models.reward_head import head_module
from finegrain.models.score import Precision
from finegrain.models.scorer import Scorer, fused, plain, use_branched_attention
from finegrain.objectives.aot import AOT
from finegrain.objectives.aot_unpaired import AOTUnpaired
from finegrain.objectives.ava_p import AvaP
from finegrain.objectives.cpo import CPO
from finegrain.objectives.dpo import DPO
from finegrain.objectives.kto import KTO
from finegrain.objectives.mask_network import SimpleAll
from finegrain.objectives.nll import NLL
from finegrain.objectives.orpo import ORPO
from finegrain.objectives.sparsepo import Independent, SparsePO
from finegrain.objectives.tdpo2 import TDPO2
from finegrain.objectives.token_distillation import TokenDistillation
from finegrain.recipes.training.data import add_mismatched
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.span_labels import BalancedTokens, SpanLabels
from finegrain.rewards.token import Token
from finegrain.rewards.word_prior import WordTable
from finegrain.train.batches import Plan
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.loop import Trainer, run_step
from finegrain.train.metrics import metrics_for
from finegrain.train.optim import Optim, make_optimizer
from finegrain.train.read_contract import contract_of
from finegrain.train.sharding import shard
from finegrain.train.tables import make_tables
from finegrain.train.tally import Metrics
from finegrain.types import TokenColumns
from tests.tiny import MODELS, SIZES, exact_norms, examples
from tests.train.awkward import Gated, Gates, KLDifference, Reliable, UnitGradients

OBJECTIVES: dict[str, Callable[[], Any]] = {
    "dpo": DPO,
    "kto": KTO,
    "cpo": CPO,
    "orpo": ORPO,
    "aot": AOT,
    "aot-unpaired": AOTUnpaired,
    "token-distillation": TokenDistillation,
    "nll": NLL,
    "ava-p": AvaP,
    "span-labels": partial(RewardFit, Token(aspects=("one", "two")), SpanLabels(weighting=BalancedTokens())),
    "a table of words as prior": partial(RewardFit, Token(prior=WordTable(weight=2.0)), BradleyTerry()),
    "a module and a table": Gated,
    "a gradient rule": UnitGradients,
    "both directions of the KL": KLDifference,
    "late counts and a replaced table": Gates,
    "a wrapper": Reliable,
    "tdpo2": TDPO2,
    "a reader of the reference": partial(SparsePO, masks=Independent(), network=SimpleAll(dropout=0.0), l1_reward=1e-3, l1_kl=1e-3),
}


def can_be_sharded(objective: Any) -> bool:
    """Own gradients, heads, and late counts beside other terms need whole parameters."""
    return not hasattr(objective, "gradient") and not hasattr(objective, "outputs") and not hasattr(objective, "threshold")


ROWS, BATCH, STEPS = 21, 5, 20
"""The last step of an epoch has one row: fewer than two ranks would like."""

HUGE = 10**9

PEOPLE = 3
"""Annotators of the rows, where an objective reads who they are."""


@dataclass(frozen=True, kw_only=True)
class How:
    """What must not matter, and the dtype."""

    dtype: torch.dtype = torch.float32
    micro_tokens: int = HUGE
    branched: bool = True
    """Whether the model carries the packed attention; without it the plain path runs."""
    world: int = 1
    shard: bool = False
    device: str = "cpu"
    layers: int = 1
    """Of the model; what is split has none."""
    rate: float = 3e-4
    """More than twice DPO's default at this width. Adam turns a gradient's round-off d into rate * d / (|g| + 1e-8), so a
    coordinate whose gradient is itself round-off (d = 1e-10) may differ by 1 % of the rate: 3e-6 in float32."""


def build(objective: Any, how: How) -> tuple[Trainer, Plan]:
    """A trainer and its plan, the same for every `how` but for the split."""
    contract = contract_of(objective, seed=1).sized(how.layers, SIZES["hidden_size"], seed=4)
    torch.manual_seed(3)
    model = MODELS["llama"](num_hidden_layers=how.layers).to(how.device, how.dtype).train()
    if how.dtype == torch.float64:
        exact_norms(model)
    if how.branched:
        use_branched_attention(model)
    scorer = Scorer(model, fused if how.branched else plain)
    for module in contract.modules.values():
        module.to(how.device, how.dtype)
    if contract.outputs:
        scorer.head = head_module(objective.make_head, SIZES["hidden_size"], contract.outputs, seed=2, dtype=how.dtype).to(how.device)
    data = training_set(contract)
    plan = Plan(data.packed_tokens(contract.roles), BATCH, STEPS / 5, 7, how.micro_tokens, how.world)
    assert len(plan) == STEPS
    frozen = copy_reference(scorer) if contract.live_reference else None
    if how.shard:
        shard(scorer)
    optim = Optim(weight_decay=0.01)
    extra = [parameter for module in contract.modules.values() for parameter in module.parameters()]
    trainer = Trainer(
        scorer=scorer,
        contract=contract,
        data=data,
        optimizer=make_optimizer(scorer.parameters(), extra, optim, how.rate, extra_decay=contract.module_decay),
        optim=optim,
        precision=Precision(nullcontext, "float64" if how.dtype == torch.float64 else "float32", how.micro_tokens),
        metrics=_metrics(contract),
        peak_rate=how.rate,
        steps=len(plan),
        frozen=frozen,
        state=make_tables(contract, data, torch.device(how.device)),
    )
    return trainer, plan


def training_set(contract: Contract) -> TrainingSet:
    """Rows in the objective's shape, random references near the model's values, credit on a part of the answers."""
    paired = "chosen" in contract.roles
    rows = examples(ROWS, seed=5, roles=("chosen", "rejected") if paired else ("answer",), label=not paired)
    if "mismatched" in contract.all_roles:
        rows = add_mismatched(collect(rows))
    rng = np.random.default_rng(11)
    roles = contract.all_roles
    reference = {role: [rng.normal(-4.5, 0.5, len(row.responses[role].ids)).astype(np.float32) for row in rows] for role in roles}
    columns = {role: _credit(rows, role, rng) for role in contract.roles}
    if "labels" in contract.token_columns:
        columns = {role: replace(own, labels=_labels(rows, role, own.annotated, contract.outputs, rng)) for role, own in columns.items()}
    people = {name: np.arange(len(rows)) % PEOPLE for name in contract.categories}
    return TrainingSet(rows, reference, columns, people, dict.fromkeys(people, PEOPLE))


def _metrics(contract: Contract) -> Metrics:
    """None for a reward head: nobody computes its log-probabilities."""
    return metrics_for(contract) if "logp" in contract.needs else lambda pair: {}


def _labels(rows: Sequence[Example], role: str, annotated: Sequence[bool], aspects: int, rng: np.random.Generator) -> list[np.ndarray | None]:
    """Labels of the tokens of annotated answers, a fifth of them bad."""
    lengths = [len(row.responses[role].ids) for row in rows]
    return [(rng.random((length, aspects)) > 0.2).astype(np.float32) if has else None for has, length in zip(annotated, lengths, strict=True)]


def _credit(rows: Sequence[Example], role: str, rng: np.random.Generator) -> TokenColumns:
    """Weights (a third of them 0), rewards and segments of tokens; every third answer was not annotated."""
    annotated = [index % 3 != 0 for index in range(len(rows))]
    lengths = [len(row.responses[role].ids) for row in rows]

    def of_annotated(make: Callable[[int], np.ndarray]) -> list[np.ndarray | None]:
        return [make(length) if has else None for has, length in zip(annotated, lengths, strict=True)]

    weight = of_annotated(lambda length: (rng.random(length) * (rng.random(length) < 0.67)).astype(np.float32))
    reward = of_annotated(lambda length: rng.normal(0, 0.1, length).astype(np.float32))
    segment = of_annotated(lambda length: np.arange(length, dtype=np.int64) // 3)
    for index, row in enumerate(rows):
        found, mask = segment[index], row.responses[role].mask
        if found is not None:
            segment[index] = np.where(mask, np.unique(np.where(mask, found, -1), return_inverse=True)[1] - int(not mask.all()), -1).astype(np.int64)
    return TokenColumns(weight, reward, segment, annotated)


def train(trainer: Trainer, plan: Plan, steps: Sequence[int] | None = None) -> list[dict[str, float]]:
    """The logged lines of some steps, of all by default."""
    return [run_step(trainer, plan.step(index)) for index in (range(len(plan)) if steps is None else steps)]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Everything that a run changes: policy, modules, tables."""
    found = {name: tensor.detach().clone() for name, tensor in trainer.scorer.named_parameters()}
    for key, module in trainer.contract.modules.items():
        found |= {f"{key}.{name}": tensor.detach().clone() for name, tensor in module.named_parameters()}
    return found | {f"table.{name}": table.clone() for name, table in trainer.state.items()}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference of weights, relative to the tensor's largest entry where that is above 1."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max() / max(1.0, float(other[name].abs().max()))) for name in one)


def largest_metric_difference(one: Sequence[dict[str, float]], other: Sequence[dict[str, float]]) -> float:
    """Largest difference of a logged number, relative where it is above 1; lines must have the same names."""
    assert [line.keys() for line in one] == [line.keys() for line in other]
    return max(abs(a[name] - b[name]) / max(1.0, abs(b[name])) for a, b in zip(one, other, strict=True) for name in b)
