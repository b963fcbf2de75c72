"""Token rewards from edits: worked numbers, gradients, limits."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.errors import DataError, UsageError
from finegrain.ops.readout import Mean
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.fine_grained import FineGrained, Identity, PerToken, StopGradient, Total, Zero
from finegrain.rewards.token import Token
from finegrain.types import Pair
from tests.rewards.answers import Answers
from tests.rewards.sides import side

PLAIN = FineGrained(regulariser=0.0)


def edited(chosen: list[float], rejected: list[float], changed: tuple[list[float], list[float]]) -> tuple[Pair, list[Tensor]]:
    """One pair, its live outputs first of chosen, then of rejected."""
    sides, live = {}, []
    for role, rewards, weight in zip(("chosen", "rejected"), (chosen, rejected), changed, strict=True):
        made = side([[[reward] for reward in rewards]])
        assert made.outputs is not None
        live.append(made.outputs.clone().requires_grad_())
        sides[role] = replace(made, outputs=live[-1], weight=torch.tensor([weight], dtype=torch.float64))
    return Pair(sides=sides, columns={"row": torch.zeros(1)}), live


def value(loss: FineGrained, pair: Pair) -> Any:
    return loss(Token(), pair)["edits"].value


def test_worked() -> None:
    """Worked by hand: R^w = 2, R^l = -1, six tokens, divided by all: d = .5, loss .474077."""
    one = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    pair, _ = edited([9.0, 2.0, 9.0, 9.0, 9.0, 9.0], [9.0, -1.0, 9.0, 9.0, 9.0, 9.0], (one, one))
    assert value(replace(PLAIN, denominator=PerToken()), pair).item() == pytest.approx(0.474077, abs=1e-6)
    assert value(PLAIN, pair).item() == pytest.approx(math.log1p(math.exp(-3.0))), "divided by the one changed token"
    assert value(replace(PLAIN, denominator=Total()), pair).item() == pytest.approx(math.log1p(math.exp(-3.0)))


def test_identical_texts_teach_nothing() -> None:
    pair, live = edited([1.0, 2.0], [3.0, 4.0], ([0.0, 0.0], [0.0, 0.0]))
    loss = value(PLAIN, pair)
    assert loss.item() == pytest.approx(math.log(2))
    assert all(not grad.any() for grad in torch.autograd.grad(loss, live, allow_unused=True) if grad is not None)


@pytest.mark.parametrize("unchanged", [Zero(), StopGradient()])
def test_the_gradient_reaches_changed_tokens_alone(unchanged: Zero | StopGradient) -> None:
    pair, live = edited([1.0, 2.0, 0.5], [3.0, -4.0], ([0.0, 1.0, 1.0], [1.0, 0.0]))
    loss = value(FineGrained(regulariser=0.0, unchanged=unchanged, denominator=PerToken()), pair)
    chosen, rejected = (grad[0, :, 0].tolist() for grad in torch.autograd.grad(loss, live))
    slope = 1 - math.exp(-loss.item())  # 1 - sigma(d)
    assert chosen == pytest.approx([0.0, -slope / 3, -slope / 3])
    assert rejected == pytest.approx([slope / 2, 0.0])


def test_identity_over_all_tokens_is_the_token_head_under_bradley_terry() -> None:
    pair, _ = edited([1.0, 2.0, 0.5], [3.0, -4.0], ([0.0, 1.0, 1.0], [1.0, 0.0]))
    loss = FineGrained(regulariser=0.0, unchanged=Identity(), denominator=PerToken())
    torch.testing.assert_close(value(loss, pair), BradleyTerry()(Token(readout=Mean()), pair), rtol=0, atol=1e-12)


def test_a_deletion_puts_the_whole_signal_on_the_original() -> None:
    pair, live = edited([1.0], [1.0, -2.0], ([0.0], [0.0, 1.0]))
    loss = value(PLAIN, pair)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2.0)))
    (grad,) = torch.autograd.grad(loss, live[1])
    assert grad[0, 0, 0] == 0 < grad[0, 1, 0]


def test_the_regulariser_is_a_mean_over_unchanged_tokens() -> None:
    pair, _ = edited([1.0, 2.0, 0.5], [3.0, -4.0], ([0.0, 1.0, 1.0], [1.0, 0.0]))
    term = FineGrained()(Token(), pair)["unchanged"]
    assert (term.value.item(), term.count.item(), term.coefficient) == (1.0 + 16.0, 2.0, 0.01)


def test_rewrites_are_not_counted() -> None:
    pair, _ = edited([1.0, 2.0], [3.0, 4.0], ([1.0, 1.0], [1.0, 1.0]))
    left_out = replace(pair, columns={**pair.columns, "annotated/chosen": torch.zeros(1)})
    for term in FineGrained()(Token(), left_out).values():
        assert (term.value.item(), term.count.item()) == (0.0, 0.0)


def test_how_well_scores_find_the_edits() -> None:
    """Removed tokens below the rest: 1 of 2 and a tie of half; added ones above all; a rewrite and an untouched side say nothing."""
    pair, _ = edited([0.0, 5.0, 1.0], [1.0, 0.0, 1.0], ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0]))
    found = FineGrained().measures(Token(), pair)
    assert {name: own.tolist() for name, own in found.items()} == {"edits_in_order": [1.0], "removed_auroc": [0.25], "added_auroc": [1.0]}
    inserted, _ = edited([0.0, -5.0], [1.0], ([0.0, 1.0], [0.0]))
    found = FineGrained().measures(Token(), inserted)
    assert found["edits_in_order"].item() == 0.0, "the added token has a reward below 0"
    assert found["added_auroc"].item() == 0.0
    assert found["removed_auroc"].isnan().all()
    rewrite = replace(pair, columns={**pair.columns, "annotated/chosen": torch.zeros(1)})
    assert all(own.isnan().all() for own in FineGrained().measures(Token(), rewrite).values())


def answers(rejected: list[list[int]], chosen: list[list[int]], trains: bool = True) -> Answers:
    ids = {"rejected": [np.array(row) for row in rejected], "chosen": [np.array(row) for row in chosen]}
    return Answers(roles=("chosen", "rejected"), ids=ids, trains=trains)


def test_weights_of_edits_by_hand() -> None:
    """A substitution in four, an insertion, a rewrite, twice the same, and exactly half of the longer answer, which still counts."""
    given = answers(
        [[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4], [5, 6], [1, 2, 3, 4]],
        [[1, 9, 3, 4], [1, 2, 8, 3], [7, 8, 9, 4], [5, 6], [1, 2]],
    )
    made = FineGrained().prepare(Token(), given)
    assert list(made) == ["rejected", "chosen"]
    tolists = lambda rows: [None if own is None else own.tolist() for own in rows]
    assert tolists(made["rejected"].weight) == [[0, 1, 0, 0], [0, 0, 0], None, [0, 0], [0, 0, 1, 1]]
    assert tolists(made["chosen"].weight) == [[0, 1, 0, 0], [0, 0, 1, 0], None, [0, 0], [0, 0]]
    for columns in made.values():
        assert list(columns.annotated) == [True, True, False, True, True]
        assert list(columns.reward) == list(columns.segment) == [None] * 5
        assert all(own is None or own.dtype == np.float32 for own in columns.weight)
    assert given.noted == {"edits": {"pairs": 5, "rewrites_left_out": 1, "identical": 1}}


def test_the_cap_is_a_share_of_the_longer_answer() -> None:
    """One token becomes four others: 4 of 4 changed, where 4 of 1 would be."""
    assert FineGrained(most_changed=1.0).prepare(Token(), answers([[1]], [[2, 3, 4, 5]]))["chosen"].weight[0] is not None
    assert FineGrained(most_changed=1.0).prepare(Token(), answers([[2, 3, 4, 5]], [[1]]))["rejected"].weight[0] is not None


def test_without_an_edit_there_is_nothing_to_train_on() -> None:
    rewrites = [[1, 2], [3, 4]], [[5, 6], [7, 8]]
    with pytest.raises(DataError, match="no pair is a small edit: in all 2 pairs more than 50% of the tokens differ"):
        FineGrained().prepare(Token(), answers(*rewrites))
    held_out = FineGrained().prepare(Token(), answers(*rewrites, trains=False))
    assert held_out["chosen"].weight == held_out["rejected"].weight == [None, None]


@pytest.mark.parametrize("settings", [{"regulariser": -1.0}, {"most_changed": 0.0}, {"most_changed": 1.5}])
def test_bad_settings(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        FineGrained(**settings)  # type: ignore[arg-type]
