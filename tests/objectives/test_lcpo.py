"""lcpo: worked numbers, its limits, the gradient of the marginal likelihood, and reliabilities that are found again."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.objectives.dpo import DPO
from finegrain.objectives.hinge import Hinge
from finegrain.objectives.ipo import IPO
from finegrain.objectives.lcpo import HIGHEST, LCPO, LOWEST, Gibbs, PerAnnotator, Weighted, probability_right
from finegrain.objectives.margins import average_logp_margin, log_ratio_margin
from finegrain.objectives.simpo import SimPO
from finegrain.types import Pair, Side, row_losses
from tests.objectives.worked import random_pair, real


def of_margins(margins: Tensor, reliability: Tensor, annotator: Tensor | None = None) -> Pair:
    """Pairs of one-token answers whose log-ratios differ by the margins."""
    answer = lambda values: Side(logp=values[:, None], ref_logp=torch.zeros_like(values)[:, None], mask=torch.ones(len(values), 1, dtype=torch.bool))
    columns = {} if annotator is None else {"annotator": annotator}
    return Pair(sides={"chosen": answer(margins / 2), "rejected": answer(-margins / 2)}, columns=columns, state={"reliability": reliability})


def with_state(pair: Pair, value: float) -> Pair:
    return Pair(sides=pair.sides, columns=pair.columns, state={"reliability": real(value)})


def test_worked_numbers() -> None:
    p, eta = real(0.7, 0.3, 0.05), real(0.9)
    right = probability_right(torch.logit(p), eta.expand(3))
    torch.testing.assert_close(right, real(0.954545455, 0.794117647, 0.321428571), rtol=0, atol=1e-9)
    method = LCPO(base=DPO(beta=1.0))
    pair = of_margins(torch.logit(p), eta)
    assert float(method(pair).mean()) == pytest.approx(0.807479240, abs=1e-9)
    moved = method.update_state(pair.state, method.after_step(pair.state, pair))
    assert float(moved["reliability"]) == pytest.approx(0.879003056, abs=1e-9)


def test_what_a_step_logs() -> None:
    pair = of_margins(torch.logit(real(0.7, 0.05)), real(0.9))
    found = LCPO(base=DPO(beta=1.0)).measures(pair)
    torch.testing.assert_close(found["labels/right"].value, real(0.954545455, 0.321428571), rtol=0, atol=1e-9)
    assert found["labels/suspected"].value.tolist() == [0, 1]
    assert found["labels/suspected"].count.tolist() == [1, 1]


def test_with_certain_labels_dpo_is_dpo_and_ipo_is_its_logistic() -> None:
    pair = with_state(random_pair(), 1.0)
    torch.testing.assert_close(LCPO(base=DPO(beta=0.3))(pair), DPO(beta=0.3)(pair), rtol=0, atol=1e-12)
    margin = log_ratio_margin(pair)
    torch.testing.assert_close(LCPO(base=IPO(beta=0.3))(pair), -logsigmoid(2 * margin / 0.3), rtol=0, atol=1e-12)
    assert not torch.allclose(LCPO(base=IPO(beta=0.3))(pair), row_losses(IPO(beta=0.3)(pair)))


def test_the_link_of_each_loss() -> None:
    """p of the sheet: dpo sigma(beta h), simpo and hinge by the difference of both orders."""
    pair = with_state(random_pair(), 1.0)
    h = log_ratio_margin(pair)
    relu = torch.nn.functional.relu
    torch.testing.assert_close(LCPO(base=Hinge(beta=0.3))(pair), -logsigmoid(relu(1 + 0.3 * h) - relu(1 - 0.3 * h)), rtol=0, atol=1e-12)
    simpo = SimPO()
    difference = simpo.beta * average_logp_margin(pair)
    odds = logsigmoid(difference - simpo.gamma) - logsigmoid(-difference - simpo.gamma)
    torch.testing.assert_close(LCPO(base=simpo)(pair), -logsigmoid(odds), rtol=0, atol=1e-12)


def slope(margin: float, reliability: float, form: Any = None) -> float:
    """Of the loss by the odds."""
    margins = real(margin).requires_grad_()
    LCPO(base=DPO(beta=1.0), form=form or Gibbs())(of_margins(margins, real(reliability))).sum().backward()
    assert margins.grad is not None
    return float(margins.grad)


def test_a_coin_teaches_nothing_and_a_suspected_label_is_muted_and_never_reversed() -> None:
    for margin in (-8.0, -1.0, 0.0, 2.0):
        assert slope(margin, 0.5) == pytest.approx(0, abs=1e-12)
        p = 1 / (1 + math.exp(-margin))
        right = float(probability_right(real(margin), real(0.9)))
        assert slope(margin, 0.9) == pytest.approx(p - right, abs=1e-12)
        assert slope(margin, 0.9) < 0
    assert abs(slope(-8.0, 0.9)) < 0.01 * abs(slope(0.0, 0.9)) < abs(slope(-8.0, 1.0))


def test_w_grows_with_p_and_reliability_and_is_the_reliability_of_an_even_pair() -> None:
    odds = real(-3, -1, 0, 1, 3)
    grid = torch.stack([probability_right(odds, real(eta).expand(5)) for eta in (0.55, 0.7, 0.9, 0.99)])
    assert bool((grid.diff(dim=0) > 0).all())
    assert bool((grid.diff(dim=1) > 0).all())
    torch.testing.assert_close(grid[:, 2], real(0.55, 0.7, 0.9, 0.99), rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_the_marginal_likelihood() -> None:
    margins = real(-2, -0.3, 0.4, 5).requires_grad_()
    eta = 0.8
    found = torch.autograd.grad(LCPO(base=DPO(beta=1.0))(of_margins(margins, real(eta))).sum(), margins)[0]
    p = torch.sigmoid(margins)
    want = torch.autograd.grad(-torch.log(p * eta + (1 - p) * (1 - eta)).sum(), margins)[0]
    torch.testing.assert_close(found, want, rtol=0, atol=1e-12)


def test_weighted_losses_are_the_same_for_dpo_and_others_for_ipo() -> None:
    pair = with_state(random_pair(), 0.8)
    for base, same in ((DPO(), True), (IPO(), False), (Hinge(), False)):
        assert torch.allclose(LCPO(base=base)(pair), LCPO(base=base, form=Weighted())(pair), rtol=0, atol=1e-12) == same
    right = probability_right(row_losses(IPO()(pair.swapped())) - row_losses(IPO()(pair)), real(0.8).expand(5))
    want = right * row_losses(IPO()(pair)) + (1 - right) * row_losses(IPO()(pair.swapped()))
    torch.testing.assert_close(LCPO(base=IPO(), form=Weighted())(pair), want, rtol=0, atol=1e-12)


def test_only_annotators_of_the_step_move_and_within_bounds() -> None:
    method = LCPO(base=DPO(beta=1.0), annotators=PerAnnotator(), rate=1.0)
    state = method.make_state({"annotator": 3})
    assert state["reliability"].tolist() == [0.9] * 3
    pair = of_margins(real(40, 40, -40), state["reliability"], real(0, 0, 2))
    moved = method.update_state(state, method.after_step(state, pair))["reliability"]
    assert moved.tolist() == [HIGHEST, 0.9, LOWEST]
    still = LCPO(annotators=PerAnnotator(), rate=0.0, initial=1.0)
    state = still.make_state({"annotator": 3})
    assert torch.equal(still.update_state(state, still.after_step(state, pair))["reliability"], state["reliability"])


def test_rows_count_by_their_weight() -> None:
    method = LCPO(base=DPO(beta=1.0), rate=1.0)
    state = {"reliability": real(0.9)}
    pair = of_margins(torch.logit(real(0.7, 0.05)), real(0.9))
    weighted = Pair(sides=pair.sides, columns={"weight": real(0.2, 0.0)}, state=pair.state)
    moved = method.update_state(state, method.after_step(state, weighted))
    assert float(moved["reliability"]) == pytest.approx(0.954545455, abs=1e-9)
    nothing = method.after_step(state, Pair(sides=pair.sides, columns={"weight": real(0.0, 0.0)}, state=pair.state))
    assert method.update_state(state, nothing)["reliability"].tolist() == [0.9]


def test_what_was_known_of_an_annotator_counts_for_rows() -> None:
    method = LCPO(annotators=PerAnnotator(prior_rows=3.0), rate=0.4)
    moved = method.update_state({"reliability": real(0.9, 0.9)}, {"right": real(0.6, 4.8), "rows": real(1, 6)})["reliability"]
    assert moved.tolist() == pytest.approx([0.9 - 0.4 * 1 / 4 * 0.3, 0.9 - 0.4 * 6 / 9 * 0.1], abs=1e-12)


@pytest.mark.parametrize("share", [0.6, 0.7, 0.8, 0.9])
def test_the_recursion_finds_the_share_of_right_labels_of_a_calibrated_policy(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    odds = 3 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    agrees = (torch.rand(20_000, generator=generator) < torch.sigmoid(odds)) == (torch.rand(20_000, generator=generator) < share)
    labelled = torch.where(agrees, odds, -odds)
    method, state = LCPO(base=DPO(beta=1.0), rate=1.0), {"reliability": real(0.9)}
    before = -math.inf
    for _ in range(200):
        p, eta = torch.sigmoid(labelled), float(state["reliability"])
        likelihood = float(torch.log(p * eta + (1 - p) * (1 - eta)).mean())
        assert likelihood >= before - 1e-12, "it never falls under full EM"
        before = likelihood
        state = method.update_state(state, method.after_step(state, of_margins(labelled, state["reliability"])))
    assert float(state["reliability"]) == pytest.approx(share, abs=0.015)


def test_planted_annotators_are_told_apart_while_the_policy_learns() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2000, 5, generator=generator, dtype=torch.float64)
    true = 4 * features @ real(1, -1, 0.5, 0, 2)
    annotator = (torch.arange(2000) % 2).double()
    right = torch.rand(2000, generator=generator) < real(0.6, 0.9)[annotator.long()]
    labelled = torch.where((true > 0) == right, 1.0, -1.0).double()[:, None] * features
    weight = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    method = LCPO(base=DPO(beta=1.0), annotators=PerAnnotator())
    state, optimiser = method.make_state({"annotator": 2}), torch.optim.Adam([weight], 0.05)
    for _ in range(300):
        pair = of_margins(labelled @ weight, state["reliability"], annotator)
        optimiser.zero_grad()
        method(pair).mean().backward()
        optimiser.step()
        with torch.no_grad():
            state = method.update_state(state, method.after_step(state, pair))
    assert state["reliability"].tolist() == pytest.approx([0.6, 0.9], abs=0.05)
