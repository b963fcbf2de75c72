"""The reward step on demonstrations and samples: worked numbers, a loop, positions, what does not train."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.errors import DataError, UsageError
from finegrain.ops.readout import Last, Mean
from finegrain.rewards.irl_sft import IRLSFT, Aligned, Linear, Longer, aligned_loss, first_difference, released_range
from finegrain.rewards.token import Token
from finegrain.types import Pair
from tests.rewards.sides import side


def pair_of(chosen: list[list[float]], rejected: list[list[float]], starts: list[int]) -> Pair:
    """Ragged token rewards, and where the two answers first differ."""
    sides = {}
    for role, rows in (("chosen", chosen), ("rejected", rejected)):
        made = side([[[value] for value in row] for row in rows])
        place = torch.arange(made.mask.shape[1])
        weight = torch.where(made.mask, (place >= torch.tensor(starts)[:, None]).double(), float("nan"))
        assert made.outputs is not None
        sides[role] = replace(made, weight=weight, outputs=made.outputs.clone().requires_grad_())
    return Pair(sides=sides, columns={"row": torch.arange(len(starts)).double()})


SUM = Token()


def value(loss: IRLSFT, pair: Pair, head: Token = SUM) -> Tensor:
    (term,) = loss(head, pair).values()
    return term.value


def naive(chosen: list[float], rejected: list[float], start: int, *, longer: bool) -> float:
    """One position after the other."""
    end = max(len(chosen), len(rejected)) if longer else min(len(chosen), len(rejected))
    values = [(row + [row[-1]] * (end - len(row)))[:end] for row in (chosen, rejected)]
    losses = [-math.log(1 / (1 + math.exp(values[1][t] - values[0][t]))) for t in range(start, end)]
    return sum(losses) / len(losses)


ROWS = ([[0.5, 1.0, -0.3, 2.0], [0.1, 0.4]], [[0.5, -1.0, 0.7], [0.9, -0.4, 1.5, 0.3, 0.2]], [1, 0])


@pytest.mark.parametrize("longer", [False, True])
def test_equals_a_loop(longer: bool) -> None:
    loss = IRLSFT(step=Aligned(positions=Longer())) if longer else IRLSFT()
    want = [naive(c, r, s, longer=longer) for c, r, s in zip(*ROWS, strict=True)]
    assert value(loss, pair_of(*ROWS)).tolist() == pytest.approx(want)


def test_by_hand() -> None:
    """Positions 1 and 2 of the first pair: differences 2 and -1."""
    assert value(IRLSFT(), pair_of(*ROWS))[0].item() == pytest.approx((math.log1p(math.exp(-2.0)) + math.log1p(math.exp(1.0))) / 2)


def test_no_gradient_before_the_difference_nor_past_the_shorter_answer() -> None:
    pair = pair_of(*ROWS)
    grads = torch.autograd.grad(value(IRLSFT(), pair).sum(), [one.outputs for one in pair.sides.values()])
    moved = [[place for place in range(grad.shape[1]) if grad[row, place, 0]] for grad in grads for row in range(2)]
    assert moved == [[1, 2], [0, 1], [1, 2], [0, 1]]
    torch.testing.assert_close(grads[0][0, 1:3], -grads[1][0, 1:3])


def test_shift_invariant() -> None:
    chosen, rejected, starts = ROWS
    shifted = pair_of([[v + 3 for v in row] for row in chosen], [[v + 3 for v in row] for row in rejected], starts)
    torch.testing.assert_close(value(IRLSFT(), shifted), value(IRLSFT(), pair_of(*ROWS)))


def test_linear_worked_and_bounded() -> None:
    """-(2 - .5) + 1/2 (4 + .25) with regulariser 1; the best scores are +-1 over it."""
    pair = pair_of([[0.0, 2.0]], [[0.0, 0.5]], [1])
    assert value(IRLSFT(step=Linear()), pair, Token(readout=Last())).item() == pytest.approx(-1.5 + 2.125)
    best = pair_of([[0.5]], [[-0.5]], [0])
    loss = value(IRLSFT(step=Linear(regulariser=2.0)), best)
    assert loss.item() == pytest.approx(-0.5)
    assert not any(grad.abs().max() > 1e-12 for grad in torch.autograd.grad(loss.sum(), [one.outputs for one in best.sides.values()]))
    assert value(IRLSFT(step=Linear()), pair, Token(readout=Mean())).item() == pytest.approx(-0.75 + 0.5 * (1 + 0.0625))
    with pytest.raises(UsageError, match="regulariser"):
        Linear(regulariser=0.0)


@dataclass
class Answers:
    """Token ids by role."""

    ids: Mapping[str, list[list[int]]]
    trains: bool = True
    roles: tuple[str, ...] = ("chosen", "rejected")
    noted: dict[str, Any] = field(default_factory=dict)

    def token_ids(self, role: str) -> list[np.ndarray]:
        return [np.array(row, dtype=np.int32) for row in self.ids[role]]

    def masks(self, role: str) -> list[np.ndarray]:
        return [np.ones(len(row), dtype=bool) for row in self.ids[role]]

    def entropies(self, role: str) -> list[np.ndarray]:
        raise NotImplementedError

    def labelled_steps(self, role: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
        raise NotImplementedError

    def span_values(self, role: str, aspects: object) -> list[np.ndarray | None]:
        raise NotImplementedError

    def table_scores(self) -> Mapping[str, list[np.ndarray]]:
        raise NotImplementedError

    def note(self, name: str, facts: Mapping[str, int]) -> None:
        self.noted[name] = dict(facts)


def test_prepared_columns_and_what_is_left_out() -> None:
    """A pair that differs at once, later, never, and one that begins the other."""
    answers = Answers({"chosen": [[1, 2, 3], [5, 6, 7, 8], [4, 4], [1, 2]], "rejected": [[9, 2], [5, 6, 1], [4, 4], [1, 2, 3]]})
    found = IRLSFT().prepare(Token(), answers)
    assert answers.noted == {"first_difference": {"pairs": 4, "identical_left_out": 1, "one_begins_the_other_left_out": 1}}
    assert list(found["chosen"].annotated) == [True, True, False, False]
    shown = [[None if one is None else one.tolist() for one in found[role].weight] for role in ("chosen", "rejected")]
    assert shown == [[[1, 1, 1], [0, 0, 1, 1], None, None], [[1, 1], [0, 0, 1], None, None]]
    assert all(one is None or one.dtype == np.float32 for one in found["chosen"].weight)
    begins = Answers({"chosen": [[1, 2, 3], [7], [4, 4]], "rejected": [[1, 2], [8], [4, 4]]})
    IRLSFT().prepare(Token(), begins)
    assert begins.noted["first_difference"] == {"pairs": 3, "identical_left_out": 1, "one_begins_the_other_left_out": 1}
    linear = IRLSFT(step=Linear()).prepare(Token(), answers)
    assert list(linear["chosen"].annotated) == [True, True, False, True], "whole answers can be compared wherever they differ"
    with pytest.raises(DataError, match="in all 1 pairs"):
        IRLSFT().prepare(Token(), Answers({"chosen": [[4, 4]], "rejected": [[4, 4]]}))


@pytest.mark.parametrize("step", [Aligned(), Aligned(positions=Longer()), Linear()])
def test_pairs_left_out_count_nothing(step: Any) -> None:
    pair = pair_of(*ROWS)
    pair = replace(pair, columns={**pair.columns, "annotated/chosen": torch.tensor([1.0, 0.0])})
    (term,) = IRLSFT(step=step)(Token(), pair).values()
    assert term.count.tolist() == [1, 0]
    assert term.value[1] == 0


@pytest.mark.parametrize("step", [Aligned(), Aligned(positions=Longer())])
def test_only_pairs_with_a_common_position_count(step: Aligned) -> None:
    """The first rejected answer ends before the difference, the second does not."""
    terms = IRLSFT(step=step)(Token(), pair_of([[1.0, 2.0], [1.0]], [[1.0], [3.0]], [1, 0]))
    assert {name: (term.value.tolist(), term.count.tolist()) for name, term in terms.items()} == {
        "aligned": (pytest.approx([0.0, math.log1p(math.exp(2.0))]), [0.0, 1.0])
    }
    assert list(IRLSFT(step=Linear())(Token(), pair_of(*ROWS))) == ["linear"]


def test_a_hole_in_an_answer_is_not_past_its_end() -> None:
    """Another role's turn at place 1 of four; the last token is at 2."""
    rewards, mask = torch.tensor([[1.0, 9.0, 3.0, 9.0]]), torch.tensor([[True, False, True, False]])
    shown, counted = Longer()(rewards, mask, torch.ones_like(mask))
    assert (shown.tolist(), counted.tolist()) == ([[1.0, 9.0, 3.0, 3.0]], [[True, False, True, True]])


def test_first_difference() -> None:
    assert [first_difference(np.array(a), np.array(b)) for a, b in (([1, 2], [1, 3]), ([2], [1]), ([1, 2], [1, 2, 3]), ([1], [1]))] == [1, 0, 2, 1]


def test_released_range() -> None:
    """From the first difference to the later first pad: padding of the shorter row is in it, a pair that does not differ is not."""
    chosen = torch.tensor([[1, 2, 5, 0, 0, 0], [3, 0, 0, 0, 0, 0], [7, 7, 7, 7, 7, 7]])
    rejected = torch.tensor([[1, 3, 4, 6, 9, 0], [3, 0, 0, 0, 0, 0], [7, 7, 7, 7, 7, 8]])
    found = released_range(chosen, rejected, 0)
    assert [row.nonzero()[:, 0].tolist() for row in found] == [[1, 2, 3, 4], [], [5]]
    ends = released_range(torch.tensor([[1, 2, 3, 0], [1, 0, 0, 0]]), torch.tensor([[1, 4, 3, 0], [2, 3, 0, 0]]), 0)
    assert [row.nonzero()[:, 0].tolist() for row in ends] == [[1, 2], [0, 1]], "every row has pads of its own"
    zeros = torch.zeros(3, 6)
    assert aligned_loss(zeros, zeros, found).tolist() == pytest.approx([math.log(2), 0.0, math.log(2)])


def test_large_differences_do_not_underflow() -> None:
    loss = aligned_loss(torch.tensor([[-500.0]]), torch.tensor([[500.0]]), torch.ones(1, 1, dtype=torch.bool))
    assert loss.item() == pytest.approx(1000.0)
