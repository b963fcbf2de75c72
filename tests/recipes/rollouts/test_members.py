"""Members of rewards over a buffer: the minimum of the formula as it is written, spread, wins, and the warning when they come apart."""

import numpy as np
import pytest
import torch

from finegrain.errors import UsageError
from finegrain.ops.aggregate import NominalMix, PerBatch, PerSample
from finegrain.recipes.rollouts.members import GROWN, SpreadWatch, aggregate_buffer, check_members, member_facts, pack_members
from finegrain.types import Scored

MEANS = np.array([[1.0, 0.2, 0.7], [0.0, 2.0, 0.5], [0.4, 0.3, 0.9]])
STDS = np.array([[0.1, 0.5, 0.3], [0.4, 0.2, 0.1], [0.3, 0.3, 0.6]])
BUFFER = np.stack([MEANS, STDS], 1)
MIX = NominalMix(share=0.4, worst=PerBatch())


def test_the_minimum_is_outside_the_mean() -> None:
    """Means over the buffer are 0.467, 0.833 and 0.7: the first member is the least, on all answers, also where another one is lower."""
    nominal = torch.tensor([1.0, 0.5, 0.4], dtype=torch.float64)
    torch.testing.assert_close(aggregate_buffer(MIX, BUFFER), 0.4 * nominal + 0.6 * torch.from_numpy(MEANS[:, 0]))
    least = aggregate_buffer(NominalMix(share=0.0, worst=PerBatch()), BUFFER)
    per_sample = NominalMix(share=0.0, worst=PerSample())(Scored(torch.zeros(3), None, torch.from_numpy(MEANS.T), torch.from_numpy(STDS.T)))
    assert float(per_sample.mean()) <= float(least.mean()) <= MEANS.mean()


def test_an_answer_that_was_not_judged_counts_nowhere() -> None:
    gap = np.full((1, 2, 3), np.nan)
    found = aggregate_buffer(MIX, np.concatenate([BUFFER[:1], gap, BUFFER[1:]]))
    assert bool(found[1].isnan())
    torch.testing.assert_close(found[[0, 2, 3]], aggregate_buffer(MIX, BUFFER))
    assert member_facts("judge", np.concatenate([BUFFER, gap])) == member_facts("judge", BUFFER)
    assert member_facts("judge", gap) == {}
    assert bool(aggregate_buffer(MIX, gap).isnan().all())


def test_one_member_is_itself_to_the_bit() -> None:
    one = BUFFER[:, :, :1]
    torch.testing.assert_close(aggregate_buffer(MIX, one), torch.from_numpy(one[:, 0, 0]), rtol=0, atol=0)


def test_adding_to_all_members_and_their_order() -> None:
    moved = BUFFER + np.array([[[5.0], [0.0]]])
    torch.testing.assert_close(aggregate_buffer(MIX, moved), aggregate_buffer(MIX, BUFFER) + 5)
    torch.testing.assert_close(aggregate_buffer(MIX, BUFFER[:2, :, [2, 0, 1]]), aggregate_buffer(MIX, BUFFER[:2]))


def test_facts() -> None:
    found = member_facts("judge", BUFFER)
    assert found["spread/judge"] == pytest.approx((0.8 + 2.0 + 0.6) / 3)
    assert found["member_std/judge"] == pytest.approx(STDS.mean())
    assert [found[f"wins/judge/{member}"] for member in range(3)] == pytest.approx([2 / 3, 0.0, 1 / 3])  # of equal ones the first
    without = np.stack([MEANS, np.full_like(MEANS, np.nan)], 1)
    assert set(member_facts("judge", without)) == {"spread/judge"}
    with pytest.raises(UsageError, match="gaussian-ensemble"):
        aggregate_buffer(MIX, without)
    with pytest.raises(UsageError, match="no members"):
        check_members("judge", None)


def test_one_answer_is_packed() -> None:
    packed = pack_members(Scored(torch.tensor(0.5), None, torch.tensor([0.0, 1.0]), torch.tensor([0.25, 0.5])))
    assert packed is not None
    assert packed.tolist() == [[0.0, 1.0], [0.25, 0.5]]
    assert pack_members(Scored(torch.tensor(0.5))) is None


def test_members_that_come_apart_are_named() -> None:
    watch = SpreadWatch()
    assert watch({"spread/judge": 0.5, "reward": 9.0}) == []
    assert watch({"spread/judge": 0.5 * GROWN}) == []
    (words,) = watch({"spread/judge": 0.5 * GROWN + 0.01, "spread/other": 3.0})
    assert "reward judge" in words
    again = SpreadWatch(dict(watch.start))
    assert len(again({"spread/judge": 1.1})) == 1
