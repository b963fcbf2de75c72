"""figa: worked numbers, its limits, gate, counts, and what is changed by a revision."""

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.errors import DataError
from finegrain.objectives.figa import FIGA, EveryToken, Pairs
from finegrain.objectives.nll import NLL
from finegrain.ops.edits import least_edit
from finegrain.types import Pair, Side
from tests.objectives.worked import real
from tests.rewards.answers import Answers

EOS = 1
CORRECTIONS = FIGA()


def answers(revised: list[list[int]], original: list[list[int]], method: FIGA) -> Answers:
    """The last token ends an answer unless it was cut."""
    ids = {role: [np.array(own, dtype=np.int32) for own in rows] for role, rows in zip(method.roles, (revised, original), strict=True)}
    ends = {role: [(np.arange(len(own)) == len(own) - 1) & (own == EOS) for own in rows] for role, rows in ids.items()}
    return Answers(roles=method.roles, ids=ids, ends=ends)


def changes(revised: list[int], original: list[int], method: FIGA = CORRECTIONS) -> tuple[list[int], list[int]]:
    """The marks of tokens of both answers."""
    columns = method.prepare(answers([revised], [original], method))
    found = [columns[role].weight[0] for role in method.roles]
    assert found[0] is not None
    assert found[1] is not None
    return found[0].astype(int).tolist(), found[1].astype(int).tolist()


def pair_of(corrected: Tensor, original: Tensor, marks: tuple[list[int], list[int]]) -> Pair:
    """One row of the given log-probabilities and changed tokens."""
    sides = {
        role: Side(logp=logp[None], mask=torch.ones(1, len(logp), dtype=torch.bool), weight=torch.tensor([own], dtype=torch.float64))
        for role, logp, own in zip(("corrected", "original"), (corrected, original), marks, strict=True)
    }
    return Pair(sides=sides)


def loss(method: FIGA, pair: Pair) -> Tensor:
    (term,) = method(pair).values()
    return term.coefficient * term.value.sum() / term.count.sum()


def test_worked_edit() -> None:
    assert changes([10, 11, 12, 13, EOS], [10, 14, 12, EOS]) == ([0, 1, 0, 1, 1], [0, 1, 0, 0])
    assert changes([10, 11, EOS], [10, 11, 12, 13, EOS]) == ([0, 0, 1], [0, 0, 1, 1, 0])
    assert changes([10, 11], [10, 12, 13], FIGA(rows=Pairs())) == ([0, 1], [0, 1, 1]), "a revision that was cut has no end token"
    assert least_edit(np.array([5, 6, 7, EOS]), np.array([5, 6, 8, 9, 7])).first[-1]
    assert changes([5, 6, 8, 9, 7], [5, 6, 7, EOS])[1][-1] == 0, "and the original's is never removed"


def test_counts_of_insertions_and_deletions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        corrected, original = ([*rng.integers(5, 9, rng.integers(1, 9)).tolist(), EOS] for _ in range(2))
        if corrected == original:
            continue
        revised, removed = changes(corrected, original)
        edit = least_edit(np.array(original), np.array(corrected))
        assert sum(revised) == edit.second.sum() + (not edit.second[-1])
        assert sum(removed) == edit.first.sum()
        assert len(corrected) - len(original) == edit.second.sum() - edit.first.sum()


def test_without_a_change_only_the_end_trains_and_an_empty_original_makes_it_sft() -> None:
    corrected = real(-0.1, -0.2, -0.3)
    same = pair_of(corrected, corrected.clone(), ([0, 0, 1], [0, 0, 0]))
    assert float(loss(FIGA(), same)) == pytest.approx(0.3)
    pair = pair_of(corrected, real(-2.0), changes([5, 6, EOS], [EOS]))
    assert float(loss(FIGA(), pair)) == pytest.approx(0.2)
    assert float(loss(FIGA(added=1.0, unchanged=1.0, removed=0.0, denominator=EveryToken()), pair)) == pytest.approx(0.6 / 4)


def test_without_the_removed_side_it_is_weighted_likelihood() -> None:
    pair = pair_of(real(-0.5, -1.0, -0.25), real(-0.1, -0.1), ([0, 1, 1], [0, 1]))
    assert float(loss(FIGA(removed=0.0), pair)) == pytest.approx(1.25 / 2, abs=1e-12)
    sft = NLL()(Pair(sides={"answer": Side(logp=pair.sides["corrected"].logp, mask=pair.sides["corrected"].mask)}))
    (term,) = sft.values() if isinstance(sft, dict) else (None,)
    assert term is not None
    whole = float(loss(FIGA(added=1.0, unchanged=1.0, removed=0.0), pair))
    assert whole == pytest.approx(float(term.value.sum() / term.count.sum()), abs=1e-12)


def test_slopes_and_the_gate() -> None:
    corrected, original = real(-0.5, -1.0).requires_grad_(), real(-0.59, -0.61, -0.2).requires_grad_()
    pair = pair_of(corrected, original, ([0, 1], [1, 1, 0]))
    found = torch.autograd.grad(loss(FIGA(), pair), [corrected, original])
    assert found[0].tolist() == pytest.approx([0, -1 / 2])
    assert found[1].tolist() == pytest.approx([0.5 / 2, 0, 0]), "the second removed token is already unlikely"
    free = torch.autograd.grad(loss(FIGA(gate=None), pair), [original])[0]
    assert free.tolist() == pytest.approx([0.5 / 3, 0.5 / 3, 0])
    open_ = FIGA().measures(pair)["gate/open"]
    assert (float(open_.value), float(open_.count)) == (1, 2)
    for value in (-0.01, -0.3, -0.6, -3.0, -50.0):
        gone = pair_of(real(0.0), real(value), ([1], [1]))
        assert float(loss(FIGA(), gone)) >= -0.3
    assert float(loss(FIGA(gate=None), pair_of(real(0.0), real(-50.0), ([1], [1])))) < -10


def test_rows_without_any_weight_count_nothing() -> None:
    method = FIGA()
    (term,) = method(pair_of(real(-0.5), real(-0.5), ([0], [0]))).values()
    assert (float(term.value), float(term.count)) == (0, 0)
    with pytest.raises(DataError, match="every revision has the tokens of its original"):
        method.prepare(answers([[5, EOS]], [[5, EOS]], method))
    two = answers([[5, EOS], [5, 6, EOS]], [[5, EOS], [7, EOS]], method)
    columns = method.prepare(two)
    assert two.noted == {"revisions": {"rows": 2, "identical": 1, "cut": 0, "removed_tokens": 1, "added_tokens": 2}}
    assert columns["corrected"].weight[0].tolist() == [0, 1], "of an answer that needed no revision the end alone trains"  # type: ignore[union-attr]
