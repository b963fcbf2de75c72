"""Baselines of a fixed sampler: worked numbers, invariance, nothing under group means, the same optimum under values."""

from dataclasses import replace

import pytest
import torch

from finegrain.online.contrast import contrast_facts, contrast_rewards
from finegrain.online.gae import GAE
from finegrain.online.groups import GroupMean, GroupNorm, LeaveOneOut
from finegrain.online.rollout import Rollout
from finegrain.online.stages import Advantage, Stages, compute_update
from finegrain.online.transforms import Transforms
from finegrain.ops.baseline import Mean
from tests.online.rollouts import ANSWERS, make_rollout, scalars, update_of

SCORES = torch.tensor([0.2, 0.6, 0.1, 0.4, 0.7], dtype=torch.float64)


def with_baseline(rollout: Rollout, bars: list[float], **known: object) -> Rollout:
    """One number per prompt, for every reward."""
    own = torch.tensor(bars, dtype=torch.float64)[rollout.group][:, None].expand(-1, rollout.sequence.shape[1])
    return replace(rollout, baseline=own, **known)  # type: ignore[arg-type]


def test_worked_numbers() -> None:
    bar = float(Mean()(SCORES))
    assert bar == pytest.approx(0.4)
    for offset in (0.0, 3.0):
        found = contrast_rewards(with_baseline(scalars([0.9 + offset, 0.4 + offset]), [bar + offset]))
        torch.testing.assert_close(found.sequence[:, 0], torch.tensor([0.5, 0.0], dtype=torch.float64))
        assert found.baseline is None
    same = contrast_rewards(with_baseline(scalars([0.9]), [float(Mean()(torch.full((5,), 0.3).double()))]))
    assert float(same.sequence) == pytest.approx(0.9 - 0.3)


def test_flipped_labels_shrink_the_difference() -> None:
    """Every reward is flipped at rates c0 and c1; the expectation over all flips of six answers, exactly."""
    c0, c1, truth = 0.1, 0.2, torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    expected = c0 + (1 - c0 - c1) * truth
    relative = contrast_rewards(with_baseline(scalars([float(expected[0])]), [float(expected[1:].mean())]))
    assert float(relative.sequence) == pytest.approx(0.7 * float(truth[0] - truth[1:].mean()))


@pytest.mark.parametrize("dense", [False, True])
def test_any_function_of_the_prompt_cancels(dense: bool) -> None:
    """To rounding; and a factor of the reward is a factor of the result, which no other monotone map is."""
    rollout, bars = make_rollout(dense=dense), [0.3, -0.7, 1.1]
    plain = update_of(with_baseline(rollout, bars), GAE())
    offsets = torch.tensor([5.0, -2.0, 0.25], dtype=torch.float64)
    shifted = replace(rollout, sequence=rollout.sequence + offsets[rollout.group][:, None])
    moved = update_of(with_baseline(shifted, [bar + float(offset) for bar, offset in zip(bars, offsets, strict=True)]), GAE())
    torch.testing.assert_close(moved.advantage, plain.advantage)
    twice = replace(rollout, sequence=2 * rollout.sequence, tokens=2 * rollout.tokens)
    torch.testing.assert_close(
        contrast_rewards(with_baseline(twice, [2 * bar for bar in bars])).totals,
        2 * contrast_rewards(with_baseline(rollout, bars)).totals,
        equal_nan=True,
    )
    cubed = contrast_rewards(with_baseline(replace(rollout, sequence=rollout.sequence**3), [bar**3 for bar in bars]))
    assert not torch.allclose(cubed.sequence, contrast_rewards(with_baseline(rollout, bars)).sequence ** 3, equal_nan=True)


@pytest.mark.parametrize("advantage", [GroupMean(), LeaveOneOut(), GroupNorm()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("dense", [False, True])
def test_group_means_take_it_out_again(advantage: Advantage, dense: bool) -> None:
    rollout = make_rollout(dense=dense)
    plain, relative = update_of(rollout, advantage), update_of(with_baseline(rollout, [0.3, -70.0, 11.0]), advantage)
    torch.testing.assert_close(relative.advantage, plain.advantage, atol=1e-6, rtol=0)
    assert float((update_of(with_baseline(rollout, [0.3, -70.0, 11.0]), GAE()).advantage - update_of(rollout, GAE()).advantage).abs().max()) > 1


def test_it_comes_before_all_other_transforms() -> None:
    """A clip of the reward sees what is left, and the penalty of a cut answer stays."""
    rollout = with_baseline(scalars([10.5, 9.8]), [10.0])
    stages = Stages(advantage=GroupMean(), transforms=Transforms(clip=(-1.0, 1.0)))
    update = compute_update(rollout, stages, stages.start())
    torch.testing.assert_close(update.rewards.score[:, 0], torch.tensor([0.5, -0.2], dtype=torch.float64))
    assert update.facts["reward"] == pytest.approx(10.15)  # logged as the reward gave it


def test_rewards_on_tokens_keep_their_differences() -> None:
    rollout = make_rollout(dense=True)
    found = contrast_rewards(with_baseline(rollout, [0.3, -0.7, 1.1]))
    torch.testing.assert_close(found.tokens, rollout.tokens)
    bars = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)[rollout.group][:, None]
    torch.testing.assert_close(found.totals, rollout.totals - bars, equal_nan=True)


def test_scale_and_gate_take_the_whole_answer() -> None:
    rollout = make_rollout(dense=True)
    scale = torch.full((ANSWERS, 1), 4.0, dtype=torch.float64)
    scaled = contrast_rewards(with_baseline(rollout, [0.3] * 3, baseline_scale=scale))
    torch.testing.assert_close(scaled.totals, (rollout.totals - 0.3) / 4, equal_nan=True)
    gated = contrast_rewards(with_baseline(rollout, [0.3] * 3, above_only=True))
    whole = rollout.totals
    torch.testing.assert_close(gated.totals, (whole - 0.3).clamp(min=0).where(~whole.isnan(), whole), equal_nan=True)
    below = (whole <= 0.3)[:, 0]
    assert below.any()
    assert not gated.tokens[below].any()


def test_a_reward_without_a_baseline_and_an_unjudged_answer_stay() -> None:
    rollout = make_rollout(dense=True)
    two = replace(rollout, sequence=rollout.sequence.repeat(1, 2), tokens=rollout.tokens.repeat(1, 1, 2), weights=(1.0, 1.0))
    bars = torch.stack([torch.full((ANSWERS,), 0.5), torch.full((ANSWERS,), torch.nan)], 1).double()
    found = contrast_rewards(replace(two, baseline=bars, above_only=True, baseline_scale=torch.full((ANSWERS, 2), 2.0).double()))
    torch.testing.assert_close(found.sequence[:, 1], two.sequence[:, 1], equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(found.tokens[..., 1], two.tokens[..., 1], rtol=0, atol=0)
    assert bool(found.sequence[1].isnan().all())


def test_facts_are_the_mean_and_the_win_rate() -> None:
    found = contrast_facts(with_baseline(scalars([0.9, 0.5, 0.1, float("nan")]), [0.4]), ["judge"])
    assert found == {"contrast/judge/mean": pytest.approx(0.1), "contrast/judge/above": pytest.approx(2 / 3)}
    assert contrast_facts(scalars([1.0]), ["judge"]) == {}


def test_the_expected_policy_gradient_is_the_same() -> None:
    """Of a softmax policy over five answers: a constant of the prompt times the sum of the score function is 0; the gate is no constant."""
    logits, rewards = torch.randn(5, generator=torch.Generator().manual_seed(3)).double(), SCORES + torch.tensor([0.3, 0, -0.2, 0.5, 0]).double()
    policy = logits.softmax(0)
    scores = torch.eye(5, dtype=torch.float64) - policy  # d log pi(a) / d logits
    gradient = lambda reward: (policy[:, None] * reward[:, None] * scores).sum(0)
    relative = contrast_rewards(with_baseline(scalars(rewards.tolist()), [float(SCORES.mean())])).sequence[:, 0]
    torch.testing.assert_close(gradient(relative), gradient(rewards))
    gated = contrast_rewards(with_baseline(scalars(rewards.tolist()), [float(SCORES.mean())], above_only=True)).sequence[:, 0]
    assert not torch.allclose(gradient(gated), gradient(rewards))
