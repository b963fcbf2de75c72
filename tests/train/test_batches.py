"""Rows drawn by chance and rows of a second stream: in their shares, the same again from any step on, whatever the split."""

from dataclasses import replace

import numpy as np
import pytest

from finegrain.train.batches import Plan

TOKENS = np.random.default_rng(0).integers(3, 40, 40)
CHANCE = np.array([0.0, 1.0, 3.0, 0.0] * 10)
SECOND = np.arange(40) >= 33


def plan(**changes: object) -> Plan:
    return replace(Plan(TOKENS, 8, 3.0, 5, 10**9), **changes)


def all_rows(one: Plan) -> list[tuple[int, ...]]:
    return [one.step(index).rows for index in range(len(one))]


KINDS = {
    "drawn": plan(chance=CHANCE),
    "two streams": plan(second=SECOND, second_share=0.3),
    "both": plan(chance=CHANCE, second=SECOND, second_share=0.3),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_step_depends_on_nothing_that_was_read_before(name: str) -> None:
    """Resumed in the middle, and split over micro-batches and ranks."""
    whole = all_rows(KINDS[name])
    assert [KINDS[name].step(index).rows for index in reversed(range(len(whole)))] == whole[::-1]
    split = replace(KINDS[name], world=3, micro_tokens=50)
    assert all_rows(split) == whole
    for index in range(len(split)):
        positions = sorted(position for share in split.step(index).micro for part in share for position in part)
        assert positions == list(range(len(split.step(index).rows))), "a row that was drawn twice is read twice"
    assert all_rows(replace(KINDS[name], seed=6)) != whole
    assert np.array_equal(KINDS[name].visited(), np.unique(np.concatenate(whole)))


def test_rows_are_drawn_as_often_as_their_chance_says() -> None:
    long = replace(KINDS["drawn"], epochs=400.0)
    assert long.steps_per_epoch == 3, "half of the rows have a chance"
    counts = np.bincount(np.concatenate(all_rows(long)), minlength=40)
    assert (counts[CHANCE == 0] == 0).all()
    often, seldom = counts[CHANCE == 3].sum(), counts[CHANCE == 1].sum()
    assert often / (often + seldom) == pytest.approx(0.75, abs=0.02)
    assert max(len(rows) - len(set(rows)) for rows in all_rows(long)) > 0, "with replacement"


def test_every_step_has_its_share_of_the_second_stream() -> None:
    steps = all_rows(KINDS["two streams"])
    assert KINDS["two streams"].second_rows == 2
    for rows in steps:
        assert sum(SECOND[list(rows)]) == 2
    first = [row for rows in steps for row in rows if not SECOND[row]]
    assert np.array_equal(np.bincount(first, minlength=33)[:33], np.full(33, 3)), "three epochs of the first stream"
    second = np.array([row for rows in steps for row in rows if SECOND[row]])
    for start in range(0, len(second) - 6, 7):
        assert len(set(second[start : start + 7])) == 7, "it starts again once it has ended, not before"
    orders = [tuple(second[start : start + 7]) for start in range(0, 28, 7)]
    assert len(set(orders)) == len(orders), "in another order"


def test_a_plan_without_either_is_what_it_was() -> None:
    assert np.array_equal(np.sort(np.concatenate(all_rows(plan(epochs=1.0)))), np.arange(40))
    assert plan().step(7).epoch == pytest.approx(1 + 3 / 5)
    even = all_rows(plan(chance=np.ones(40), epochs=1.0))
    assert len(set(np.concatenate(even))) < 40, "an even chance is no epoch"


def test_a_share_is_at_least_one_row_of_either() -> None:
    assert plan(second=SECOND, second_share=0.001).second_rows == 1
    assert plan(second=SECOND, second_share=0.999).second_rows == 7
