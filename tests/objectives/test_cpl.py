"""cpl: worked numbers, the identity with dpo, bias, soft labels, discount, segments with offsets, BC and the rank form."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.objectives.cpl import CPL, BothAnswers, ChosenAnswers, LogProbabilities, LogRatios, biased_loss, rank_loss
from finegrain.objectives.dpo import DPO
from finegrain.objectives.offset_segments import FromOffset
from finegrain.objectives.reference_free import ReferenceFree
from finegrain.types import Pair, Side
from tests.objectives.worked import close, even_side, random_pair, real

PLAIN = LogRatios(bias=1.0)


def rows(method: CPL, pair: Pair) -> Tensor:
    term = method(pair)["cpl"]
    assert bool(term.count.all())
    return term.value


def labelled(pair: Pair, **columns: Tensor) -> Pair:
    return replace(pair, columns={**pair.columns, **columns})


def shifted(pair: Pair, nats: float) -> Pair:
    return replace(pair, sides={role: replace(side, logp=side.logp.detach() + nats) for role, side in pair.sides.items()})


def even_pair(chosen: float, rejected: float, length: int = 4) -> Pair:
    return Pair(sides={"chosen": even_side(chosen, -3.0, length), "rejected": even_side(rejected, -3.0, length)})


@pytest.mark.parametrize(("bias", "loss"), [(1.0, 0.474076984), (0.5, 0.668459648)])
def test_worked_pair(bias: float, loss: float) -> None:
    close(rows(CPL(score=LogProbabilities(alpha=0.1, bias=bias)), even_pair(-4.0, -9.0)), loss)


def test_defaults_are_the_authors() -> None:
    assert CPL() == CPL(score=LogRatios(alpha=0.2, bias=0.75), gamma=1.0, bc=0.0)
    assert LogProbabilities() == LogProbabilities(alpha=0.1, bias=0.5)
    assert (CPL().beta, CPL().needs) == (0.2, {"reference"})
    assert CPL(score=LogProbabilities()).needs == frozenset()


def test_without_discount_and_bias_it_is_dpo() -> None:
    pair = random_pair()
    for score, same in ((LogRatios(alpha=0.3, bias=1.0), DPO(beta=0.3)), (LogProbabilities(alpha=0.3, bias=1.0), ReferenceFree(beta=0.3))):
        got, want = rows(CPL(score=score), pair), same(pair)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
        live = [pair.chosen.logp, pair.rejected.logp]
        for ours, theirs in zip(torch.autograd.grad(got.sum(), live), torch.autograd.grad(want.sum(), live), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_uniform_reference_is_reference_free_dpo() -> None:
    """Of answers of equal length, whose constants cancel."""
    pair = even_pair(-4.0, -9.0)
    uniform = replace(pair, sides={role: replace(side, ref_logp=torch.full_like(side.logp, -5.0)) for role, side in pair.sides.items()})
    torch.testing.assert_close(rows(CPL(score=LogRatios(alpha=0.3, bias=1.0)), uniform), ReferenceFree(beta=0.3)(pair), rtol=0, atol=1e-12)


def test_only_a_bias_sees_a_shift_of_both_segments() -> None:
    pair = even_pair(-4.0, -9.0)
    plain, biased = (CPL(score=LogProbabilities(bias=bias)) for bias in (1.0, 0.5))
    torch.testing.assert_close(rows(plain, shifted(pair, 0.7)), rows(plain, pair), rtol=0, atol=1e-12)
    losses = [rows(biased, shifted(pair, nats)).item() for nats in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 5


def test_a_tie_is_symmetric_and_other_soft_labels_with_a_bias_are_not() -> None:
    first, second = real(-0.4, 1.2), real(0.3, -2.0)
    torch.testing.assert_close(
        biased_loss(first, second, bias=0.5, probability=0.5), biased_loss(second, first, bias=0.5, probability=0.5), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(biased_loss(first, second, bias=0.5, probability=0.2), biased_loss(second, first, bias=0.5, probability=0.8))
    one, zero = (biased_loss(first, second, bias=0.5, probability=p) for p in (1.0, 0.0))
    close(one - zero, *(-logsigmoid(first - 0.5 * second) + logsigmoid(second - 0.5 * first)).tolist())
    assert not torch.allclose(one - zero, second - first), "which it is without a bias"
    torch.testing.assert_close(*(biased_loss(first, second, bias=1.0, probability=p) - q for p, q in ((1.0, 0.0), (0.0, first - second))))


def test_labels_come_from_columns() -> None:
    pair, method = random_pair(rows=3), CPL()
    certain, reverse = rows(method, pair), rows(method, labelled(pair, label_prob=torch.zeros(3)))
    torch.testing.assert_close(
        rows(method, labelled(pair, label_prob=torch.tensor([1.0, 0.0, 0.25]))),
        torch.stack([certain[0], reverse[1], 0.25 * certain[2] + 0.75 * reverse[2]]),
    )
    tied = rows(method, labelled(pair, label_prob=torch.ones(3), tie=torch.tensor([0.0, 1.0, 0.0])))
    torch.testing.assert_close(tied, torch.stack([certain[0], (certain[1] + reverse[1]) / 2, certain[2]]))


def test_gradient_of_each_action() -> None:
    """-alpha gamma^t sigma(-(f+ - lambda f-)) on log pi(a_t) of the chosen, lambda times the opposite on the rejected segment."""
    pair = random_pair()
    pair = replace(pair, sides={role: replace(side, weight=None) for role, side in pair.sides.items()})
    alpha, bias, gamma = 0.3, 0.6, 0.8
    method = CPL(score=LogRatios(alpha=alpha, bias=bias), gamma=gamma)
    slopes = torch.autograd.grad(rows(method, pair).sum(), [pair.chosen.logp, pair.rejected.logp])
    width = pair.chosen.mask.shape[1]
    powers = gamma ** torch.arange(width, dtype=torch.float64)
    scores = [alpha * torch.where(side.mask, powers * (side.logp - side.ref_logp), 0.0).sum(-1) for side in (pair.chosen, pair.rejected)]
    push = torch.sigmoid(-(scores[0] - bias * scores[1]))[:, None] * powers * alpha
    torch.testing.assert_close(slopes[0], torch.where(pair.chosen.mask, -push, 0.0))
    torch.testing.assert_close(slopes[1], torch.where(pair.rejected.mask, bias * push, 0.0))


def test_at_gamma_0_only_the_first_action_matters() -> None:
    pair = random_pair()
    first = {role: replace(side, mask=side.mask & (torch.arange(6) == 0)) for role, side in pair.sides.items()}
    torch.testing.assert_close(rows(CPL(gamma=0.0), pair), rows(CPL(), replace(pair, sides=first)), rtol=0, atol=1e-12)


def test_the_discount_counts_tokens_that_train() -> None:
    """A turn of another role within the answer takes no step."""
    mask = torch.tensor([[False, True, False, True]])
    logp = real(9.0, -1.0, 9.0, -2.0)[None]
    side = Side(logp=logp, ref_logp=torch.zeros_like(logp), mask=mask, weight=torch.ones_like(logp))
    nothing = replace(side, logp=torch.zeros_like(logp))
    method = CPL(score=LogRatios(alpha=1.0, bias=1.0), gamma=0.5)
    close(rows(method, Pair(sides={"chosen": side, "rejected": nothing})), float(-logsigmoid(real(-1.0 - 0.5 * 2.0))))


def test_bc_is_a_mean_over_the_tokens_imitated() -> None:
    pair = random_pair(rows=3)
    soft = labelled(pair, label_prob=torch.tensor([1.0, 0.5, 0.0]))
    sums = {role: torch.where(side.mask, side.weight * side.logp, 0.0).sum(-1) for role, side in pair.sides.items()}
    counts = {role: torch.where(side.mask, side.weight, 0.0).sum(-1) for role, side in pair.sides.items()}
    chosen = CPL(bc=0.7, gamma=0.5, bc_answers=ChosenAnswers())(soft)["bc"]
    assert chosen.coefficient == 0.7
    for got, part in ((-chosen.value, sums), (chosen.count, counts)):
        torch.testing.assert_close(got, torch.stack([part["chosen"][0], part["chosen"][1] + part["rejected"][1], part["rejected"][2]]))
    both = CPL(bc_answers=BothAnswers())(soft)["bc"]
    torch.testing.assert_close(-both.value, sums["chosen"] + sums["rejected"])
    assert both.coefficient == 0


def test_rank_form_of_two_segments_is_the_pair_loss() -> None:
    better, worse = real(-0.4), real(-1.3)
    got = rank_loss(torch.cat([better, worse]), real(2.0, 1.0), bias=0.5)
    torch.testing.assert_close(got, biased_loss(better, worse, bias=0.5).squeeze(), rtol=0, atol=1e-12)


def test_rank_form_against_a_loop_with_equal_and_saturated_pairs() -> None:
    """Equal ratings make no pair, and a pair whose loss underflows to 0 stays in the denominator."""
    scores, ratings = real(0.5, -1000.0, 1000.0, 0.1, 0.2), real(3.0, 1.0, 4.0, 1.0, 3.0)
    pairs = [(j, i) for j in range(5) for i in range(5) if ratings[j] > ratings[i]]
    assert len(pairs) == 8
    losses = [-logsigmoid(scores[j] - 0.5 * scores[i]).item() for j, i in pairs]
    assert 0.0 in losses
    close(rank_loss(scores, ratings, bias=0.5)[None], sum(losses) / 8)
    close(rank_loss(scores, torch.ones(5), bias=0.5)[None], 0.0)


class Answers:
    """An `OffsetContext` of two ragged answers per role."""

    roles = ("chosen", "rejected")

    def __init__(self) -> None:
        self.noted: list[tuple[str, Mapping[str, int]]] = []

    def masks(self, role: str) -> list[np.ndarray]:
        return [np.array([True, False, True, True]), np.array([True, True])]

    def tokens_at(self, role: str, column: str) -> Sequence[int]:
        return {"chosen_start": [1, 0], "rejected_start": [0, 2]}[column]

    def note(self, name: str, facts: Mapping[str, int]) -> None:
        self.noted.append((name, facts))


def test_segments_from_offsets() -> None:
    answers = Answers()
    made = FromOffset(length=1).prepare(answers)
    assert [ids.tolist() for ids in made["chosen"].segment] == [[-1, -1, 0, -1], [0, -1]]
    assert [ids.tolist() for ids in made["rejected"].segment] == [[0, -1, -1, -1], [-1, -1]]
    assert [facts for _, facts in answers.noted] == [{"segments": 2, "without_a_token": 0}, {"segments": 2, "without_a_token": 1}]
    assert [ids.tolist() for ids in FromOffset().prepare(answers)["chosen"].segment] == [[-1, -1, 0, 0], [0, 0]]


def test_a_segment_is_a_pair_of_its_own() -> None:
    """Loss, discount and BC of segments are those of answers that have no other token; a pair with an empty segment does not count."""
    pair = random_pair()
    first = {"chosen": torch.tensor([0, 1, 0, 0, 0]), "rejected": torch.tensor([0, 0, 2, 0, 6])}
    inside = {role: pair.sides[role].mask & (torch.arange(6) >= start[:, None]) for role, start in first.items()}
    cut = {role: replace(side, segment=torch.where(inside[role], 0, -1)) for role, side in pair.sides.items()}
    method = CPL(gamma=0.7, bc=1.0, segment=FromOffset())
    assert method.columns == ("chosen_start", "rejected_start")
    assert method.token_columns == ("segment",)
    got = method(replace(pair, sides=cut))
    alone = replace(pair, sides={role: replace(side, mask=inside[role]) for role, side in pair.sides.items()})
    want = replace(method, segment=CPL().segment)(alone)
    counted = torch.stack([mask.any(-1) for mask in inside.values()]).all(0)
    assert counted.tolist()[-1] is False
    assert counted.sum() >= 3
    for name in ("cpl", "bc"):
        torch.testing.assert_close(got[name].value, want[name].value)
        assert not got[name].value[~counted].any()
        assert not got[name].count[~counted].any()
    assert got["cpl"].count.tolist() == counted.tolist()


@pytest.mark.parametrize("settings", [{"bias": 0.0}, {"bias": 1.1}, {"alpha": 0.0}])
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        LogProbabilities(**settings)
