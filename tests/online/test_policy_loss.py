"""The objective of online reinforcement learning: its terms, what each reads, one update per buffer, measures, and its contract."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from finegrain.online.aggregate import SeqMeanTokenMean, SeqMeanTokenSumNorm
from finegrain.online.leash import K2, K3, AdaptiveBeta, InLoss, InReward
from finegrain.online.policy_loss import BETA, PolicyLoss, SeparateCritic, SharedCritic
from finegrain.online.surrogates import Cispo, Clip, SequenceRatio
from finegrain.train.read_contract import contract_of
from finegrain.types import Side
from tests.online.sides import MASK, make_side, pair_of, total

EVERYTHING = PolicyLoss(leash=InLoss(beta=0.2), critic=SharedCritic(coefficient=0.5), entropy=0.01)
LOSSES = {
    "everything": EVERYTHING,
    "answers": replace(EVERYTHING, aggregate=SeqMeanTokenMean(), surrogate=SequenceRatio(low=0.5, high=0.5)),
    "cispo": replace(EVERYTHING, aggregate=SeqMeanTokenSumNorm(length=9), surrogate=Cispo(), leash=InLoss(estimator=K2(), corrected=False)),
    "single": replace(EVERYTHING, single=True),
}


def slopes(loss: PolicyLoss, side: Side) -> list[Tensor]:
    return list(torch.autograd.grad(total(loss(pair_of(side))), [side.logp, side.entropy, side.values]))


def test_terms_by_a_loop() -> None:
    side = make_side()
    with torch.no_grad():
        sampled, found = side.sampled, EVERYTHING(pair_of(side))
    want = dict.fromkeys(("policy", "value", "kl", "entropy"), 0.0)
    for row, t in MASK.nonzero().tolist():
        lp, old, ref, a = (float(value[row, t]) for value in (side.logp.detach(), sampled.old_logp, side.ref_logp, sampled.advantage))
        ratio = float(torch.tensor(lp - old, dtype=torch.float64).exp())
        want["policy"] += max(-ratio * a, -min(max(ratio, 0.8), 1.2) * a) / 13
        want["kl"] += ratio * (float(torch.tensor(ref - lp, dtype=torch.float64).exp()) - 1 + lp - ref) / 13
        want["entropy"] += float(side.entropy.detach()[row, t]) / 13
        v, before, goal = (float(value[row, t, 0]) for value in (side.values.detach(), sampled.old_values, sampled.returns))
        want["value"] += 0.5 * max((v - goal) ** 2, (min(max(v, before - 0.2), before + 0.2) - goal) ** 2) / 13
    for name, number in want.items():
        assert float(found[name].value.sum() / found[name].count.sum()) == pytest.approx(number), name
    assert {name: term.coefficient for name, term in found.items()} == {"policy": 1.0, "value": 0.5, "kl": 0.2, "entropy": -0.01}


@pytest.mark.parametrize("name", LOSSES)
def test_garbage_under_the_mask_and_more_padding(name: str) -> None:
    loss, want = LOSSES[name], make_side()
    clean = total(loss(pair_of(want)))
    gradients = slopes(loss, want)
    for junk in (torch.inf, 1e300, 7.0):
        other = make_side(junk=junk)
        assert torch.equal(total(loss(pair_of(other))), clean)
        for got, expected in zip(slopes(loss, other), gradients, strict=True):
            assert torch.equal(got, expected)
            assert not got[~MASK].any()


@pytest.mark.parametrize("name", LOSSES)
def test_rows_are_independent_and_micro_batches_add_up(name: str) -> None:
    loss, side = LOSSES[name], make_side()
    whole = loss(pair_of(side))
    order = torch.tensor([2, 0, 3, 1])

    def rows(index: Tensor) -> Side:
        cut = lambda value: None if value is None else value[index]
        sampled = type(side.sampled)(*map(cut, side.sampled))
        names = ("logp", "mask", "ref_logp", "entropy", "values")
        return replace(side, sampled=sampled, **{one: cut(getattr(side, one)) for one in names})

    for term, got in loss(pair_of(rows(order))).items():
        torch.testing.assert_close(got.value, whole[term].value[order])
    parts = [loss(pair_of(rows(index))) for index in (torch.tensor([0]), torch.tensor([1, 2, 3]))]
    for term in whole:
        value, count = (sum(getattr(part[term], field).sum() for part in parts) for field in ("value", "count"))
        torch.testing.assert_close(value / count, whole[term].value.sum() / whole[term].count.sum())


def test_an_answer_of_weight_0_trains_nothing_and_counts_nowhere() -> None:
    weight = torch.ones(4, 5, dtype=torch.float64)
    weight[0] = 0.0
    side = make_side(weight=weight)
    assert all(not gradient[0].any() for gradient in slopes(EVERYTHING, side))
    assert all(term.count[0] == 0 for term in EVERYTHING(pair_of(side)).values())
    ones = make_side(weight=torch.ones(4, 5, dtype=torch.float64))
    assert torch.equal(total(EVERYTHING(pair_of(ones))), total(EVERYTHING(pair_of(make_side()))))


def test_one_update_per_buffer_needs_no_old_log_probabilities() -> None:
    """The gradient is minus the advantage over the tokens, whatever the sampler said."""
    side = make_side()
    (slope,) = torch.autograd.grad(total(PolicyLoss(single=True)(pair_of(side))), side.logp)
    torch.testing.assert_close(slope, torch.where(MASK, -side.sampled.advantage / 13, 0.0))
    same = replace(side, sampled=side.sampled._replace(old_logp=side.logp.detach()))
    (again,) = torch.autograd.grad(total(PolicyLoss()(pair_of(same))), side.logp)
    torch.testing.assert_close(again, slope)
    measures = PolicyLoss(single=True).measures(pair_of(side))
    assert float(measures["ratio"].value.sum()) == 13
    assert float(measures["approx_kl"].value.sum()) == 0


def test_measures() -> None:
    side = make_side(drift=0.5)
    sampled = side.sampled
    found = {name: float(term.value.sum() / term.count.sum()) for name, term in PolicyLoss(surrogate=Clip(dual=1.3)).measures(pair_of(side)).items()}
    ratio, a = (side.logp.detach() - sampled.old_logp).exp()[MASK], sampled.advantage[MASK]
    low, high = (ratio < 0.8) & (a < 0), (ratio > 1.2) & (a > 0)
    want: dict[str, Any] = {
        "clip_ratio/low_mean": low,
        "clip_ratio/high_mean": high,
        "clip_ratio/region_mean": low | high,
        "clip_ratio/dual_mean": (a < 0) & (ratio > 1.3),
        "ratio": ratio,
        "approx_kl": ratio - 1 - ratio.log(),
    }
    assert found == pytest.approx({name: float(values.double().mean()) for name, values in want.items()})
    assert 0 < found["clip_ratio/low_mean"] < 1
    assert not any(term.value.requires_grad for term in PolicyLoss().measures(pair_of(side)).values())


def test_an_adaptive_weight_comes_with_the_rows() -> None:
    loss, fixed = PolicyLoss(leash=InLoss(beta=9.0, control=AdaptiveBeta())), PolicyLoss(leash=InLoss(beta=0.3))
    side = make_side()
    given = pair_of(side, **{BETA: torch.full((4,), 0.3, dtype=torch.float64)})
    torch.testing.assert_close(total(loss(given)), total(fixed(pair_of(side))))
    assert (contract_of(loss).made, contract_of(fixed).made) == ((BETA,), ())


def test_corrected_leash() -> None:
    side = make_side()
    plain, corrected = (PolicyLoss(leash=InLoss(estimator=K3(), beta=1.0, corrected=on))(pair_of(side))["kl"].value for on in (False, True))
    assert not torch.allclose(plain, corrected)
    same = replace(side, sampled=side.sampled._replace(old_logp=side.logp.detach()))
    torch.testing.assert_close(PolicyLoss(leash=InLoss(beta=1.0))(pair_of(same))["kl"].value, plain)


def test_contract() -> None:
    contract = contract_of(EVERYTHING)
    assert contract.needs == {"logp", "sampled", "reference", "entropy"}
    assert (contract.values, contract.roles, contract.learning_rate) == (1, ("answer",), 1e-6)
    bare = contract_of(PolicyLoss(leash=InReward(), critic=SeparateCritic(), temperature=0.7, learning_rate=3e-6))
    assert bare.needs == {"logp", "sampled"}
    assert (bare.values, bare.temperature, bare.learning_rate) == (0, 0.7, 3e-6)


@pytest.mark.parametrize("missing", ["sampled", "ref_logp", "entropy", "values"])
def test_what_is_missing_is_said(missing: str) -> None:
    with pytest.raises(ValueError, match=r"sampled answers|ref_logp|entropy|values"):
        EVERYTHING(pair_of(replace(make_side(), **{missing: None})))


def test_half_precision_is_widened() -> None:
    side = make_side()
    narrow = replace(side, logp=side.logp.detach().bfloat16(), sampled=side.sampled._replace(old_logp=side.sampled.old_logp.bfloat16()))
    wide = replace(side, logp=narrow.logp.float(), sampled=side.sampled._replace(old_logp=narrow.sampled.old_logp.float()))
    assert torch.equal(total(PolicyLoss()(pair_of(narrow))), total(PolicyLoss()(pair_of(wide))))
