"""Transforms of rewards, one by one and in their order."""

from dataclasses import replace

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.online.gae import Returns
from finegrain.online.leash import InReward
from finegrain.online.rollout import Rollout
from finegrain.online.token_rewards import is_dense, place_at_end, place_behind_end
from finegrain.online.transforms import CombinedRewards, Overlong, OverwriteTruncated, ScaleTruncated, Transforms
from tests.online.rollouts import make_rollout, scalars, update_of


def after(transforms: Transforms, rollout: Rollout) -> CombinedRewards:
    return transforms.of_answers(CombinedRewards(rollout.sequence[:, 0], rollout.tokens[..., 0]), rollout)


def cut(rewards: list[float], ended: list[int], lengths: list[int] | None = None) -> Rollout:
    return replace(scalars(rewards, lengths), ended=torch.tensor(ended))


def test_a_missing_end_costs() -> None:
    """Neither an end token nor a stop string is a missing end."""
    assert after(Transforms(missing_end=0.5), cut([1, 2, 3], [0, 1, 2])).sequence.tolist() == [0.5, 2, 3]


def test_truncated_answers() -> None:
    rollout = replace(cut([2, 2, torch.nan], [0, 1, 0], [2, 2, 2]), tokens=torch.ones(3, 2, 1, dtype=torch.float64))
    scaled = after(Transforms(truncated=ScaleTruncated(factor=0.25)), rollout)
    assert scaled.sequence[:2].tolist() == [0.5, 2]
    assert scaled.tokens[:2].tolist() == [[0.25, 0.25], [1, 1]]
    assert scaled.judged.tolist() == [True, True, False]
    over = after(Transforms(truncated=OverwriteTruncated(reward=-3.0)), rollout)
    assert over.sequence.tolist() == [-3, 2, -3]
    assert over.tokens.tolist() == [[0, 0], [1, 1], [0, 0]]


def test_overlong_answers() -> None:
    """From 6 tokens on it falls, by 2 at 10."""
    rollout = cut([0.0] * 5, [1] * 5, [5, 6, 7, 10, 12])
    assert after(Transforms(overlong=Overlong(longest=10, buffer=4, factor=2.0)), rollout).sequence.tolist() == [0, 0, -0.5, -2, -2]
    assert after(Transforms(overlong=Overlong(longest=10)), rollout).sequence.tolist() == [0] * 5
    with pytest.raises(UsageError, match="longer than"):
        Overlong(longest=3, buffer=4)


def test_order() -> None:
    """Baseline, missing end, truncation, over-long, scale, clip: ((11 - 1 - 2) / 2 - 1) 3 = 9, clipped at 8; tokens are scaled alone."""
    rollout = replace(cut([11.0], [0], [2]), columns={"ease": torch.tensor([1.0])}, tokens=torch.tensor([[[4.0], [0.0]]], dtype=torch.float64))
    transforms = Transforms(
        baseline="ease", missing_end=2.0, truncated=ScaleTruncated(factor=0.5), overlong=Overlong(longest=2, buffer=1), scale=3.0, clip=(-9.5, 9.5)
    )
    assert after(transforms, rollout).sequence.tolist() == [9]
    found = after(replace(transforms, clip=(-8.0, 8.0)), rollout)
    assert found.sequence.tolist() == [8]
    assert found.tokens.tolist() == [[6, 0]]
    with pytest.raises(UsageError, match="no column 'eas', which is the baseline"):
        after(Transforms(baseline="eas"), rollout)
    with pytest.raises(UsageError, match="smaller number"):
        Transforms(clip=(1.0, -1.0))


def test_tokens_are_clipped_before_the_leash() -> None:
    rollout = replace(
        scalars([5.0], [3]),
        tokens=torch.tensor([[[-9.0], [1.0], [2.0]]], dtype=torch.float64),
        old_logp=torch.zeros(1, 3, dtype=torch.float64),
        ref_logp=torch.full((1, 3), -4.0, dtype=torch.float64),
    )
    found = update_of(rollout, Returns(), InReward(beta=0.5), transforms=Transforms(token_clip=3.0)).rewards
    assert found.score.tolist() == [[-3, 1, 3]]
    assert found.total.tolist() == [[-5, -1, 1]]


def test_whitened_rewards_keep_their_mean() -> None:
    """Over all judged tokens of the buffer, leash included (TRL)."""
    rollout = make_rollout(dense=True)
    live = rollout.mask & rollout.judged[:, None]
    plain, white = (update_of(rollout, Returns(), InReward(), transforms=Transforms(whiten=on)).rewards.total for on in (False, True))
    torch.testing.assert_close(white[live].mean(), plain[live].mean())
    torch.testing.assert_close(white[live].std(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert not white[~live].any()


def test_where_the_reward_of_an_answer_stands() -> None:
    mask = torch.tensor([[True, True, False, False], [True, False, True, True], [False, False, False, False]])
    reward = torch.tensor([5.0, 6.0, 7.0])
    assert place_at_end(reward, mask).tolist() == [[0, 5, 0, 0], [0, 0, 0, 6], [0, 0, 0, 0]]
    behind = place_behind_end(reward[:2], torch.tensor([[True, True, False, False], [True, True, True, True]]))
    assert behind.rewards.tolist() == [[0, 0, 5, 0], [0, 0, 0, 6]]
    assert behind.mask.tolist() == [[True, True, True, False], [True] * 4]


def test_what_is_dense() -> None:
    rollout = scalars([1.0, 1.0], [3, 2])
    assert not is_dense(rollout)
    tokens = rollout.tokens.clone()
    tokens[0, 2] = tokens[1, 1] = 1.0
    tokens[1, 2] = torch.nan
    assert not is_dense(replace(rollout, tokens=tokens))
    tokens[0, 0] = 1.0
    assert is_dense(replace(rollout, tokens=tokens))
