"""Contrastive rewards: the worked case, what offsets and scales change, centring, flips, and what is refused."""

from itertools import product

import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.ops.baseline import AboveOnly, Aggregate, BaselineStd, Contrast, Difference, Max, Mean, Min, Quantile, Unscaled, win_share

WORKED = torch.tensor([0.2, 0.6, 0.1, 0.4, 0.7], dtype=torch.float64)
AGGREGATES: list[Aggregate] = [Mean(), Max(), Min(), Quantile(level=0.3)]
CONTRASTS: list[Contrast] = [kind(aggregate=one) for kind in (Difference, AboveOnly) for one in AGGREGATES]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_worked(offset: float) -> None:
    """Worked numbers; an offset of the reward model shifts both sides."""
    assert Difference()(number(0.9 + offset), WORKED + offset).item() == pytest.approx(0.5, abs=1e-12)
    assert Difference()(number(0.1 + offset), WORKED + offset).item() == pytest.approx(-0.3, abs=1e-12)
    assert AboveOnly()(number(0.9 + offset), WORKED + offset).item() == pytest.approx(0.5, abs=1e-12)
    assert AboveOnly()(number(0.1 + offset), WORKED + offset).item() == 0


@pytest.mark.parametrize(
    ("aggregate", "want"), [(Mean(), 0.4), (Max(), 0.7), (Min(), 0.1), (Quantile(), 0.4), (Quantile(level=0.75), 0.6), (Quantile(level=0.875), 0.65)]
)
def test_aggregates(aggregate: Aggregate, want: float) -> None:
    assert aggregate(WORKED).item() == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("contrast", CONTRASTS, ids=repr)
def test_equal_baselines_subtract_themselves(contrast: Contrast) -> None:
    """k responses all with score c: r - c exactly."""
    assert contrast(number(1.25), torch.full((5,), 0.5, dtype=torch.float64)).item() == 0.75


@pytest.mark.parametrize("contrast", CONTRASTS, ids=repr)
def test_a_function_of_the_prompt_changes_nothing(contrast: Contrast) -> None:
    reward, scores, offset = draw(7), draw(7, 5, seed=1), 10 * draw(7, seed=2)
    torch.testing.assert_close(contrast(reward + offset, scores + offset[:, None]), contrast(reward, scores), rtol=0, atol=1e-13)


def test_half_the_offset_is_seen() -> None:
    """A baseline scored by another checkpoint leaves a bias per prompt: why the table carries a fingerprint."""
    reward, scores, offset = draw(7), draw(7, 5, seed=1), draw(7, seed=2)
    torch.testing.assert_close(Difference()(reward + offset, scores) - Difference()(reward, scores), offset)


@pytest.mark.parametrize("contrast", CONTRASTS, ids=repr)
def test_a_positive_factor_comes_out(contrast: Contrast) -> None:
    reward, scores = draw(7), draw(7, 5, seed=1)
    torch.testing.assert_close(contrast(3.5 * reward, 3.5 * scores), 3.5 * contrast(reward, scores))


def test_a_monotone_map_does_not_commute() -> None:
    """Not even the order of two answers to different prompts is kept."""
    reward, scores = number(0.9).expand(2), torch.stack([WORKED, torch.full((5,), 0.45, dtype=torch.float64)])
    plain, mapped = Difference()(reward, scores), Difference()((4 * reward).exp(), (4 * scores).exp())
    assert plain[0] > plain[1]
    assert mapped[0] < mapped[1]


def test_the_scale_takes_affine_maps_out_above_its_floor() -> None:
    contrast = Difference(scale=BaselineStd())
    reward, scores = draw(7), draw(7, 5, seed=1)
    torch.testing.assert_close(contrast(3.5 * reward - 2, 3.5 * scores - 2), contrast(reward, scores))
    by_hand = (reward - scores.mean(1)) / ((scores - scores.mean(1, keepdim=True)).square().sum(1) / 4).sqrt()
    torch.testing.assert_close(contrast(reward, scores), by_hand)
    flat = torch.full((5,), 0.5, dtype=torch.float64)
    assert contrast(number(0.53), flat).item() == pytest.approx(3.0, abs=1e-12), "0.03 over the floor of 0.01"
    assert Difference(scale=BaselineStd(floor=0.1))(number(0.53), flat).item() == pytest.approx(0.3, abs=1e-12)


def test_group_centring_takes_the_baseline_out() -> None:
    """Advantages of GRPO and RLOO, reward minus the mean of the group or of its others, are the same with and without."""
    rewards, scores = draw(6, 4), draw(6, 5, seed=1)
    relative = Difference()(rewards, scores[:, None].expand(6, 4, 5))
    group = lambda r: r - r.mean(1, keepdim=True)
    others = lambda r: r - (r.sum(1, keepdim=True) - r) / (r.shape[1] - 1)
    for centred in (group, others):
        torch.testing.assert_close(centred(relative), centred(rewards), rtol=0, atol=1e-12)
    gated = AboveOnly()(rewards, scores[:, None].expand(6, 4, 5))
    assert (group(gated) - group(rewards)).abs().max() > 0.1, "the gate does not commute"


def test_the_expected_policy_gradient_stays() -> None:
    """sum_y pi(y) grad log pi(y) r(y) with relative rewards is the same gradient: the baseline is a constant of the prompt."""
    logits, reward, scores = draw(6).requires_grad_(), draw(6, seed=1), draw(5, seed=2)
    gradients = [
        torch.autograd.grad((logits.softmax(0).detach() * logits.log_softmax(0) * one).sum(), logits)[0]
        for one in (reward, Difference()(reward, scores.expand(6, 5)))
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


def test_flips_shrink_the_expected_difference() -> None:
    """A true reward of 0 is reported as 1 with c0, one of 1 as 0 with c1: over all reports the mean is (1 - c0 - c1) times the true difference."""
    c0, c1 = 0.1, 0.2
    truth = torch.tensor([1, 0, 1, 1], dtype=torch.float64)  # the answer, then three baseline answers
    expected = number(0.0)
    for reported in product((0, 1), repeat=4):
        flipped = [c0 if true == 0 else c1 for true in truth]
        chance = torch.tensor([p if said != true else 1 - p for p, said, true in zip(flipped, reported, truth, strict=True)]).double().prod()
        said = torch.tensor(reported, dtype=torch.float64)
        expected += chance * Difference()(said[0], said[1:])
    assert expected.item() == pytest.approx(0.7 * (1 - 2 / 3), rel=1e-6)


def test_wins() -> None:
    """Three of five scores below, one equal: 0.7."""
    assert win_share(number(0.6), WORKED).item() == pytest.approx(0.7, abs=1e-12)
    assert win_share(torch.tensor([[2.0], [-2.0]]), WORKED.expand(2, 1, 5)).tolist() == [[1.0], [0.0]]


def test_refused() -> None:
    for level in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match=r"quantile|level"):
            Quantile(level=level)
    for floor in (0.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match=r"least divisor|floor"):
            BaselineStd(floor=floor)
    with pytest.raises(UsageError, match="one baseline score"):
        Difference(scale=BaselineStd())(number(1.0), WORKED[:1])
    assert Difference(scale=Unscaled())(number(1.0), WORKED[:1]).item() == pytest.approx(0.8)
