"""AVA-p's two parts of a gradient, against gradients taken here one by one."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from finegrain.objectives.ava_p import AvaP
from finegrain.ops.balance import Balance, LiteralWeights, StartShare
from finegrain.ops.bayesian_irl import BOUND, Inference, UnitScale
from finegrain.train.batches import Step
from finegrain.train.contract import as_terms
from finegrain.train.loop import Trainer, run_step
from finegrain.types import Terms
from tests.train.harness import How, build

WIDE = How(dtype=torch.float64, layers=2)


def gradient(trainer: Trainer, terms: Terms, *, bound: bool) -> dict[str, Tensor]:
    """Of one part of the loss, by name; 0 where it has none."""
    parts = [term.coefficient * term.value.sum() / term.count.sum() for name, term in terms.items() if (name in BOUND) is bound]
    named = dict(trainer.scorer.named_parameters())
    found = torch.autograd.grad(torch.stack(parts).sum(), list(named.values()), allow_unused=True, retain_graph=True)
    return {name: torch.zeros_like(named[name]) if one is None else one for name, one in zip(named, found, strict=True)}


def norm(gradients: dict[str, Tensor], prefix: str = "model.") -> float:
    return float(torch.stack([one.norm() for name, one in gradients.items() if name.startswith(prefix)]).norm())


def undivided(trainer: Trainer, step: Step) -> Any:
    """All rows of a step as one batch."""
    (whole,) = trainer.batches(replace(step, micro=((tuple(range(len(step.rows))),),)), trainer.contract.roles)
    return whole


def both(objective: AvaP, how: How = WIDE) -> tuple[Trainer, dict[str, float], dict[str, Tensor], dict[str, Tensor]]:
    """A trainer after its first step, at rate 0 and without clipping, that step's line, and both parts' gradients taken apart from the loop."""
    trainer, plan = build(objective, replace(how, rate=0.0))
    trainer = replace(trainer, optim=replace(trainer.optim, max_grad_norm=0.0))
    line = run_step(trainer, plan.step(0))
    whole = undivided(trainer, plan.step(0))
    pair = trainer.pair(whole, {}, scored=True)
    terms = as_terms(objective(pair), pair)
    return trainer, dict(line), gradient(trainer, terms, bound=False), gradient(trainer, terms, bound=True)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_ranking_has_its_share_of_the_first_gradient(share: float) -> None:
    trainer, line, ranking, bound = both(AvaP(balance=StartShare(share=share)), replace(WIDE, micro_tokens=55))
    weight = float(trainer.state["bound_weight"])
    of_ranking, of_bound = norm(ranking), weight * norm(bound)
    assert of_ranking / (of_ranking + of_bound) == pytest.approx(share, rel=1e-6)
    assert weight != pytest.approx(1, rel=0.1)
    assert [line[name] for name in ("grad/ranking", "grad/bound", "bound_weight")] == pytest.approx([of_ranking, of_bound, weight], rel=1e-6)
    for name, parameter in trainer.scorer.named_parameters():
        torch.testing.assert_close(parameter.grad, ranking[name] + weight * bound[name], rtol=1e-5, atol=1e-9)
    weighed = sum((weight if name in BOUND else 1.0) * line[f"loss/{name}"] for name in ("likelihood", "negative", "kl", "td", "cer"))
    assert line["loss"] == pytest.approx(weighed, rel=1e-6)


def test_without_the_balance_the_bound_has_nearly_all() -> None:
    """The fault that the balance is for, and the literal sum's loss and gradient."""
    trainer, line, ranking, bound = both(AvaP(balance=LiteralWeights(), inference=Inference(scale=UnitScale())))
    assert line["bound_weight"] == 1
    assert norm(ranking) / (norm(ranking) + norm(bound)) < 0.25
    for name, parameter in trainer.scorer.named_parameters():
        torch.testing.assert_close(parameter.grad, ranking[name] + bound[name], rtol=1e-6, atol=1e-9)
    assert line["loss"] == pytest.approx(sum(line[f"loss/{name}"] for name in ("likelihood", "negative", "kl", "td", "cer")))


def test_the_weight_stays_and_norms_are_logged_now_and_then() -> None:
    trainer, plan = build(AvaP(balance=StartShare(every=3)), How())
    lines = [run_step(trainer, plan.step(index)) for index in range(7)]
    assert len({line["bound_weight"] for line in lines}) == 1
    assert [line["step"] for line in lines if "grad/ranking" in line] == [1, 3, 6]
    assert all(("grad/bound" in line) == ("grad/ranking" in line) for line in lines)


def test_a_measured_step_is_the_step() -> None:
    """Two backward passes or one: the same weights afterwards."""
    ends = []
    for every in (0, 1):
        trainer, plan = build(AvaP(balance=StartShare(every=every)), WIDE)
        for index in range(4):
            run_step(trainer, plan.step(index))
        ends.append(dict(trainer.scorer.named_parameters()))
    for name, parameter in ends[0].items():
        torch.testing.assert_close(parameter, ends[1][name], rtol=0, atol=1e-9)


class Apart(AvaP):
    """The reward loss's option, on the objective that the harness can train."""

    @property
    def balanced(self) -> Balance:
        return replace(super().balanced, bound_in_backbone=False)


@pytest.mark.parametrize("step", [0, 1], ids=["measured", "not measured"])
def test_the_bound_can_be_kept_out_of_the_backbone(step: int) -> None:
    trainer, plan = build(Apart(), replace(WIDE, rate=0.0, micro_tokens=55))
    trainer = replace(trainer, optim=replace(trainer.optim, max_grad_norm=0.0))
    for index in range(step + 1):
        run_step(trainer, plan.step(index))
    whole = undivided(trainer, plan.step(step))
    pair = trainer.pair(whole, {}, scored=True)
    terms = as_terms(trainer.contract.objective(pair), pair)
    ranking, bound = (gradient(trainer, terms, bound=one) for one in (False, True))
    weight = float(trainer.state["bound_weight"])
    for name, parameter in trainer.scorer.named_parameters():
        want = ranking[name] if name.startswith("model.") else ranking[name] + weight * bound[name]
        torch.testing.assert_close(parameter.grad, want, rtol=1e-5, atol=1e-9)
    assert norm(bound) > 1e-3, "there is something to keep out"
    if step == 0:
        assert norm(ranking, "head.") == pytest.approx(weight * norm(bound, "head."), rel=1e-6), "shares are those of the head"


@pytest.mark.parametrize("zero", ["cer", "bound"])
def test_with_one_part_only_the_other_is_as_given(zero: str) -> None:
    nothing = Inference(beta=0.0, kl=0.0, td=0.0)
    objective = AvaP(cer=0.0) if zero == "cer" else AvaP(inference=nothing)
    trainer, line, ranking, bound = both(objective)
    assert line["bound_weight"] == 1
    kept = bound if zero == "cer" else ranking
    for name, parameter in trainer.scorer.named_parameters():
        torch.testing.assert_close(parameter.grad, kept[name], rtol=1e-9, atol=1e-12)
    assert line["grad/ranking" if zero == "cer" else "grad/bound"] == 0


def test_standard_deviations_start_at_those_of_the_temporal_differences() -> None:
    trainer, _, _, _ = both(AvaP(), replace(WIDE, micro_tokens=55))
    _, plan = build(AvaP(), WIDE)
    whole = undivided(trainer, plan.step(0))
    differences: list[float] = []
    weights: list[float] = []
    for side in trainer.pair(whole, {}, scored=True).sides.values():
        logp = side.logp.detach()
        for row in range(len(side.mask)):
            for token in range(side.mask.shape[1] - 1):
                if side.mask[row, token] and side.mask[row, token + 1]:
                    differences.append(float(logp[row, token] - logp[row, token + 1]))
                    weights.append(1.0 if side.weight is None else float(side.weight[row, token]))
    mean = sum(w * d for w, d in zip(weights, differences, strict=True)) / sum(weights)
    std = math.sqrt(sum(w * (d - mean) ** 2 for w, d in zip(weights, differences, strict=True)) / sum(weights))
    head: Any = trainer.scorer.head
    assert float(head.log_std.detach().exp()) == pytest.approx(std, rel=1e-5)
    assert float(trainer.state["td_std"]) == pytest.approx(std, rel=1e-5)
    assert std != pytest.approx(1, rel=0.05)


def test_as_printed_standard_deviations_start_at_1() -> None:
    trainer, _, _, _ = both(AvaP(inference=Inference(scale=UnitScale())))
    head: Any = trainer.scorer.head
    assert float(head.log_std.detach()) == 0
    assert "td_std" not in trainer.state
