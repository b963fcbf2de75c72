"""Late counts, gradient rules and column statistics: what they give and how many passes they take."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from finegrain.errors import UsageError
from finegrain.models.scorer import Scorer
from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import log_ratio
from finegrain.train.loop import Trainer, run_step
from finegrain.train.read_contract import contract_of
from finegrain.types import Pair, RowLoss, Summed, Term, Terms
from tests.train.awkward import Gates, UnitGradients
from tests.train.harness import OBJECTIVES, How, build

WIDE = How(dtype=torch.float64, rate=0.0, micro_tokens=55)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for every forward pass, True with a gradient."""
    found: list[bool] = []
    honest = Scorer.forward

    def watched(self: Scorer, *arguments: Any, **named: Any) -> Any:
        found.append(torch.is_grad_enabled())
        return honest(self, *arguments, **named)

    monkeypatch.setattr(Scorer, "forward", watched)
    return found


def first_step(objective: Any, how: How = WIDE, *, weight: np.ndarray | None = None) -> tuple[Trainer, dict[str, float], Pair]:
    """A trainer after a first step without clipping, at rate 0; the line of that step; and the step's rows as one pair, with a graph."""
    trainer, plan = build(objective, how)
    data = trainer.data if weight is None else replace(trainer.data, columns={"weight": weight})
    trainer = replace(trainer, optim=replace(trainer.optim, max_grad_norm=0.0), data=data)
    line = dict(run_step(trainer, plan.step(0)))
    whole = replace(plan.step(0), micro=((tuple(range(len(plan.step(0).rows))),),))
    (batch,) = trainer.batches(whole, trainer.contract.roles)
    tables = {name: table.clone() for name, table in trainer.contract.state.items()}
    return trainer, line, replace(trainer.pair(batch, {}, scored=True), state=tables)


def assert_gradient(trainer: Trainer, loss: Tensor) -> None:
    """What the step left in the parameters is the gradient of this loss."""
    named = dict(trainer.scorer.named_parameters())
    wanted = torch.autograd.grad(loss, list(named.values()))
    for (name, parameter), want in zip(named.items(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, want, rtol=1e-6, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


WEIGHT = np.linspace(0.2, 3.0, 21)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
def test_late_terms_are_divided_by_what_the_pass_found(weight: np.ndarray | None) -> None:
    trainer, line, pair = first_step(Gates(), weight=weight)
    tokens = sum(float(side.mask.sum()) for side in pair.sides.values())
    terms = Gates()(replace(pair, statistics={"tokens": torch.tensor(tokens, dtype=torch.float64)}))
    rows = pair.columns.get("weight", torch.ones(len(pair.chosen.mask)))
    parts = {name: term.coefficient * (rows * term.value).sum() / (rows * term.count).sum() for name, term in terms.items()}
    assert_gradient(trainer, torch.stack(list(parts.values())).sum())
    assert line["loss"] == pytest.approx(sum(float(part.detach()) for part in parts.values()))
    for name, part in parts.items():
        assert line[f"loss/{name}"] * terms[name].coefficient == pytest.approx(float(part.detach()))
    counted = (terms["gated"].count > 0).sum()
    assert 0 < float(terms["gated"].count.sum()) < float(pair.rejected.mask.sum()), "some gates are open, some are not"
    assert counted > 1


def test_neither_late_counts_nor_sums_of_columns_cost_a_pass(passes: list[bool]) -> None:
    trainer, plan = build(Gates(), WIDE)
    run_step(trainer, plan.step(0))
    assert passes == [True] * len(plan.step(0).micro[0])
    passes.clear()
    trainer, plan = build(OBJECTIVES["aot"](), WIDE)
    run_step(trainer, plan.step(0))
    assert sorted(passes) == [False] * len(plan.step(0).micro[0]) + [True] * len(plan.step(0).micro[0]), "statistics of log-probabilities do"


@dataclass(frozen=True, kw_only=True)
class OnlyGates:
    """figa's shape: one late term, and no gate is open where nothing is likely."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    threshold: float = -4.5
    late: bool = True

    def __call__(self, pair: Pair) -> Terms:
        gate = pair.chosen.mask & (pair.chosen.logp.detach() > self.threshold)
        return {"gated": Term(masked_sum(pair.chosen.logp, gate), gate.sum(-1).to(pair.chosen.logp.dtype), late=self.late)}


def test_a_step_without_an_open_gate_moves_nothing() -> None:
    trainer, line, _ = first_step(OnlyGates(threshold=0.0))
    assert line["loss"] == 0
    assert all(not parameter.grad.any() for parameter in trainer.scorer.parameters() if parameter.grad is not None)


def test_a_count_of_the_pass_that_is_not_late_is_seen() -> None:
    """Broken: the count is taken before the pass, where every log-probability is 0 and every gate open."""
    late, early = (first_step(OnlyGates(late=late))[0] for late in (True, False))
    one, other = (torch.cat([p.grad.flatten() for p in trainer.scorer.parameters()]) for trainer in (late, early))
    assert (one / one.norm() - other / other.norm()).norm() < 1e-9
    assert not 0.9 < float(one.norm() / other.norm()) < 1.1


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
def test_a_rule_sees_weights_and_terms(weight: np.ndarray | None) -> None:
    trainer, _, pair = first_step(UnitGradients(), weight=weight)
    rows = pair.columns.get("weight", torch.ones(len(pair.chosen.mask))).double()
    parameters = list(trainer.scorer.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for term in UnitGradients()(pair).values():
        for value, count in zip(term.value, rows * term.coefficient / (rows * term.count).sum(), strict=True):
            found = torch.autograd.grad(value, parameters, retain_graph=True)
            norm = torch.cat([part.flatten() for part in found]).norm()
            total = [have + count * part / norm for have, part in zip(total, found, strict=True)]
    for parameter, want in zip(parameters, total, strict=True):
        torch.testing.assert_close(parameter.grad, want, rtol=1e-6, atol=1e-10)


@dataclass(frozen=True, kw_only=True)
class PlainRule(UnitGradients):
    """The gradient that the loss has anyway."""

    def gradient(self, pair: Pair, losses: Mapping[str, RowLoss], parameters: list[nn.Parameter]) -> list[Tensor]:
        total = torch.stack([(value * share).sum() for value, share in losses.values()]).sum()
        return list(torch.autograd.grad(total, parameters))


@dataclass(frozen=True, kw_only=True)
class DeafRule(UnitGradients):
    """Broken: reads values alone."""

    def gradient(self, pair: Pair, losses: Mapping[str, RowLoss], parameters: list[nn.Parameter]) -> list[Tensor]:
        return list(torch.autograd.grad(torch.stack([value.mean() for value, _ in losses.values()]).sum(), parameters))


def test_the_sum_of_share_times_value_is_the_loss() -> None:
    for rule in (PlainRule(), DeafRule()):
        trainer, _, pair = first_step(rule, weight=WEIGHT)
        rows = pair.columns["weight"].double()
        parts = [term.coefficient * (rows * term.value).sum() / (rows * term.count).sum() for term in rule(pair).values()]
        loss = torch.stack(parts).sum()
        if isinstance(rule, PlainRule):
            assert_gradient(trainer, loss)
            continue
        with pytest.raises(AssertionError):
            assert_gradient(trainer, loss)


@dataclass(frozen=True, kw_only=True)
class Silent(UnitGradients):
    """A rule that does not say what it costs."""

    gradient_cost: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class LateRule(UnitGradients):
    """A rule whose shares nobody knows before the pass."""

    def __call__(self, pair: Pair) -> Terms:
        return {name: replace(term, late=True) for name, term in super().__call__(pair).items()}


def test_what_a_rule_must_say_and_cannot_have() -> None:
    with pytest.raises(UsageError, match="Silent declares a gradient rule without gradient_cost"):
        contract_of(Silent())
    trainer, plan = build(LateRule(), WIDE)
    with pytest.raises(UsageError, match="the count of likelihood is late"):
        run_step(trainer, plan.step(0))


@dataclass(frozen=True, kw_only=True)
class Twice:
    """A statistic of columns and one of the pass under one name."""

    def column_statistics(self, pair: Pair) -> dict[str, Summed]:
        return {"rows": Summed(pair.chosen.mask.any(-1).sum().double())}

    def statistics(self, pair: Pair) -> dict[str, Summed]:
        assert pair.statistics["rows"] == 5, "those of columns stand already"
        return {"rows": Summed(log_ratio(pair.chosen).sum())}

    def __call__(self, pair: Pair) -> Tensor:
        return log_ratio(pair.chosen)


def test_names_of_statistics_are_their_own() -> None:
    trainer, plan = build(Twice(), WIDE)
    with pytest.raises(UsageError, match="rows is a statistic and a column statistic"):
        run_step(trainer, plan.step(0))
