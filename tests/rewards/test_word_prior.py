"""A table of words as a prior on token scores: the term by hand, what it changes and what it does not, and the choice of its weight.

Test of rewards/word_prior.py, recipes/training/prior_weight.py.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.ops.readout import Mean
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.span_labels import SpanLabels
from finegrain.rewards.token import Token
from finegrain.rewards.word_prior import NoPrior, WordTable, prepare_targets
from finegrain.train.contract import as_terms
from finegrain.types import Pair, Side
from tests.rewards.answers import Answers
from tests.rewards.sides import pair as sides_of

CHOSEN, REJECTED = [[[1.0], [2.0], [-1.0]], [[0.5]]], [[[0.0], [1.0]], [[3.0], [-2.0], [0.25], [1.5]]]
TARGETS = {"chosen": [[0.5, 0.0, -2.0], [1.0]], "rejected": [[0.0, -1.0], [1.0, 0.0, 0.0, 2.0]]}


def with_targets(pair: Pair, targets: Mapping[str, list[list[float]]] = TARGETS) -> Pair:
    """NaN off the mask."""
    sides = {}
    for role, side in pair.sides.items():
        reward = torch.full(side.mask.shape, float("nan"), dtype=torch.float64)
        for row, values in enumerate(targets[role]):
            reward[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
        sides[role] = replace(side, reward=reward)
    return replace(pair, sides=sides)


def loss_of(fit: RewardFit, pair: Pair) -> Tensor:
    """Of the rows of one step."""
    return torch.stack([term.coefficient * term.value.sum() / term.count.sum() for term in as_terms(fit(pair), pair).values()]).sum()


def prior(weight: float) -> RewardFit:
    return RewardFit(Token(prior=WordTable(weight=weight)), BradleyTerry())


def test_value_and_gradient_are_those_of_loops_over_tokens() -> None:
    pair = with_targets(sides_of(CHOSEN, REJECTED))
    leaves = {role: side.outputs.clone().requires_grad_() for role, side in pair.sides.items() if side.outputs is not None}
    own = replace(pair, sides={role: replace(side, outputs=leaves[role]) for role, side in pair.sides.items()})
    slopes = dict(zip(leaves, torch.autograd.grad(loss_of(prior(0.7), own), list(leaves.values())), strict=True))
    values = {"chosen": CHOSEN, "rejected": REJECTED}
    tokens = sum(len(answer) for answers in values.values() for answer in answers)
    margins = [sum(each[0] for each in good) - sum(each[0] for each in bad) for good, bad in zip(CHOSEN, REJECTED, strict=True)]
    expected = sum(np.log1p(np.exp(-margin)) for margin in margins) / 2
    for role, sign in (("chosen", -1), ("rejected", 1)):
        for row, answer in enumerate(values[role]):
            for place, (score,) in enumerate(answer):
                apart = score - TARGETS[role][row][place]
                expected += 0.7 * apart**2 / tokens
                slope = sign / (1 + np.exp(margins[row])) / 2 + 1.4 * apart / tokens
                assert slopes[role][row, place, 0].item() == pytest.approx(slope, abs=1e-12)
    assert loss_of(prior(0.7), own).item() == pytest.approx(expected, abs=1e-12)


def test_without_a_prior_rows_are_those_of_the_loss_to_the_bit() -> None:
    pair = with_targets(sides_of(CHOSEN, REJECTED))
    fit = RewardFit(Token(prior=NoPrior()), BradleyTerry())
    found = fit(pair)
    assert isinstance(found, Tensor)
    assert torch.equal(found, BradleyTerry()(Token(), pair))
    assert (fit.token_columns, fit.prepare(Answers(roles=("chosen", "rejected")))) == ((), {})


def test_a_table_that_knows_nothing_shrinks_scores_alone() -> None:
    zeros = {role: [[0.0] * len(values) for values in rows] for role, rows in TARGETS.items()}
    pair = with_targets(sides_of(CHOSEN, REJECTED), zeros)
    every = [each[0] for answers in (CHOSEN, REJECTED) for answer in answers for each in answer]
    left = loss_of(prior(3.0), pair) - loss_of(RewardFit(Token(), BradleyTerry()), pair)
    assert left.item() == pytest.approx(3.0 * np.mean(np.square(every)), abs=1e-12)


def test_rows_without_a_table_have_no_term() -> None:
    pair = sides_of(CHOSEN, REJECTED)
    term = as_terms(prior(2.0)(pair), pair)["prior"]
    assert not term.value.any()
    assert not term.count.any()


def test_aspects_are_drawn_by_their_weighted_sum() -> None:
    head = Token(aspects=("one", "two"), weights=(2.0, -1.0), prior=WordTable(weight=1.0))
    outputs = torch.tensor([[[1.0, 0.5], [0.0, 2.0]]], dtype=torch.float64)
    side = Side(logp=torch.zeros(1, 2), mask=torch.ones(1, 2, dtype=torch.bool), outputs=outputs, reward=torch.tensor([[1.0, 0.0]]))
    assert head.penalty is not None
    (term,) = head.penalty(Pair(sides={"chosen": side})).values()
    assert (term.value.item(), term.count.item()) == ((1.5 - 1.0) ** 2 + (-2.0) ** 2, 2.0)


def test_labels_and_table_stand_side_by_side() -> None:
    """Answers that nobody annotated stay so."""
    spans: dict[str, list[np.ndarray | None]] = {"chosen": [np.array([[[-1.0], [np.nan]]]), None], "rejected": [None, None]}
    masks = {role: [np.ones(2, bool), np.ones(2, bool)] for role in spans}
    table = {role: [np.array([0.5, -0.5]), np.array([1.0, 0.0])] for role in spans}
    made = RewardFit(Token(prior=WordTable(weight=1.0)), SpanLabels()).prepare(
        Answers(roles=("chosen", "rejected"), spans=spans, role_masks=masks, table=table)
    )
    assert made["chosen"].annotated == [True, False]
    assert made["chosen"].labels is not None
    assert made["chosen"].labels[0].tolist() == [[0.0], [1.0]]  # type: ignore[union-attr]
    assert [own.tolist() for own in made["rejected"].reward if own is not None] == [[0.5, -0.5], [1.0, 0.0]]


def test_held_out_answers_have_no_targets() -> None:
    assert prepare_targets(Answers(roles=("chosen", "rejected"), trains=False)) == {}


def test_the_readout_must_be_a_sum() -> None:
    with pytest.raises(UsageError, match=r"needs the readout sum \(head.readout:sum\)"):
        Token(readout=Mean(), prior=WordTable())
