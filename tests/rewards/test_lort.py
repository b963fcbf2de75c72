"""lort: gradient, optimum, what is left alone, and a long-tailed toy on which it helps."""

import math

import pytest
import torch
from torch import Tensor

from finegrain.errors import DataError, UsageError
from finegrain.rewards.bradley_terry import bradley_terry_loss
from finegrain.rewards.lort import (
    BalancedSampler,
    InstanceSampler,
    LinearHead,
    RetrainHead,
    expected_rating,
    fit_temperature,
    logit_magnitude,
    target_loss,
)
from finegrain.rewards.targets import OddsTarget, OneHot, SmoothedTarget


def test_gradient_is_softmax_minus_target() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    targets = OddsTarget()(torch.tensor([0, 1, 2, 3, 4, 4]), 5)
    (gradient,) = torch.autograd.grad(target_loss(logits, targets).mean(), logits)
    torch.testing.assert_close(gradient, (logits.detach().softmax(1) - targets) / 6, rtol=0, atol=1e-12)


def test_least_loss_is_the_targets_entropy_at_a_gap_of_log_odds() -> None:
    target = OddsTarget(odds=3.04)(torch.tensor([2]), 5)
    gap = torch.zeros(1, 5, dtype=torch.float64)
    gap[0, 2] = math.log(3.04)
    least = target_loss(gap, target).item()
    assert least == pytest.approx(float(-(target * target.log()).sum()), abs=1e-12)
    for other in (0.9 * gap, 1.1 * gap, gap + 0.1 * torch.randn(1, 5, dtype=torch.float64)):
        assert target_loss(other, target).item() > least


def test_no_smoothing_is_cross_entropy() -> None:
    logits, labels = torch.randn(7, 4), torch.randint(4, (7,))
    torch.testing.assert_close(target_loss(logits, OneHot()(labels, 4)), torch.nn.functional.cross_entropy(logits, labels, reduction="none"))


def test_two_classes_are_bradley_terry_with_half_the_smoothing() -> None:
    difference = torch.randn(9, dtype=torch.float64)
    logits = torch.stack([torch.zeros_like(difference), difference], 1)
    got = target_loss(logits, SmoothedTarget(smoothing=0.3)(torch.ones(9, dtype=torch.long), 2))
    torch.testing.assert_close(got, bradley_terry_loss(difference, label_smoothing=0.15), rtol=0, atol=1e-12)


def test_magnitude_worked() -> None:
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0], [0.5, 4.0]])
    got = logit_magnitude(logits, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(got.magnitude, torch.tensor([1.5, 3.0]))
    torch.testing.assert_close(got.relative_std, logits.std(0, correction=0) / torch.tensor([1.5, 3.0]))
    absent = logit_magnitude(torch.cat([logits, logits[:, :1]], 1), torch.tensor([0, 0, 1])).magnitude
    torch.testing.assert_close(absent, torch.tensor([1.5, 3.0, math.nan]), equal_nan=True)
    assert logit_magnitude(logits, torch.zeros(3, dtype=torch.long)).magnitude.isnan().all()


def test_expected_rating() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, math.log(2)]])
    torch.testing.assert_close(expected_rating(logits), torch.tensor([1.0, 1.25]))
    assert expected_rating(logits, 0.01)[1].item() == pytest.approx(2.0)
    with pytest.raises(UsageError, match="positive"):
        expected_rating(logits, 0.0)


def test_temperature_undoes_a_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 5, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    plain = fit_temperature(logits, labels)
    assert plain == pytest.approx(1.0, abs=0.1)
    assert fit_temperature(0.05 * logits, labels) == pytest.approx(0.05 * plain, rel=1e-3)
    with pytest.raises(DataError, match="held-out"):
        fit_temperature(logits[:0], labels[:0])


def test_temperature_by_hand() -> None:
    """Three of four agree with log-odds of 1/100: sigma(0.01 / T) = 3/4. Where all agree, or none, the temperature is at an end of its range."""
    odds, most = torch.tensor([[0.0, 1.0]] * 4, dtype=torch.float64), torch.tensor([1, 1, 1, 0])
    assert fit_temperature(0.01 * odds, most) == pytest.approx(0.01 / math.log(3), rel=1e-6)
    assert fit_temperature(1e-3 * odds, torch.ones_like(most)) == pytest.approx(1e-3, rel=1e-4)
    assert fit_temperature(1e3 * odds, torch.zeros_like(most)) == pytest.approx(1e3, rel=1e-4)


@pytest.mark.parametrize("sampler", [InstanceSampler(), BalancedSampler()])
def test_an_order_is_drawn_from_its_generator_alone(sampler: InstanceSampler | BalancedSampler) -> None:
    one, same, other = (sampler(torch.tensor([0] * 20 + [1] * 5), torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1))
    assert one == same != other


def test_samplers() -> None:
    labels, generator = torch.tensor([0] * 900 + [1] * 100), torch.Generator().manual_seed(0)
    assert InstanceSampler()(labels, generator).sort().values.tolist() == list(range(1000))
    drawn = labels[BalancedSampler()(labels, generator)]
    assert len(drawn) == 1000
    assert abs(drawn.double().mean().item() - 0.5) < 4 * 0.5 / 1000**0.5


def long_tailed(seed: int, counts: list[int]) -> tuple[Tensor, Tensor]:
    """Noisy features about the means of ordered classes, of which some are rare."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((count,), rating) for rating, count in enumerate(counts)])
    place = 1.2 * torch.nn.functional.one_hot(labels, len(counts)).float()
    return place + 0.7 * torch.randn(len(labels), len(counts), generator=generator), labels


def test_balanced_retraining_finds_rare_classes_and_leaves_the_features_alone() -> None:
    features, labels = long_tailed(0, [400, 120, 40, 15])
    before = features.clone()
    start = LinearHead(torch.zeros(4, 4), torch.zeros(4))
    plain = RetrainHead(target=OneHot(), sampler=InstanceSampler(), lr=0.1)(features, labels, start)
    repaired = RetrainHead(lr=0.1)(features, labels, plain)
    assert torch.equal(features, before)
    assert start.weight.eq(0).all()
    assert not repaired.weight.requires_grad
    held_out, truth = long_tailed(1, [200] * 4)
    balanced = [float((head(held_out).argmax(1) == truth).double().mean()) for head in (plain, repaired)]
    assert balanced[1] > balanced[0] + 0.1, balanced
    spread = [float(logit_magnitude(head(features), labels).magnitude.mean()) for head in (plain, repaired)]
    assert spread[1] < spread[0], "flatter targets give smaller logits"


def test_steps_equal_a_loop() -> None:
    """Three full batches of SGD with momentum under a cosine, the gradient being softmax minus target."""
    features, labels = long_tailed(0, [12, 5])
    head = RetrainHead(lr=0.3, epochs=3, batch_size=100, sampler=InstanceSampler())(features, labels, LinearHead(torch.zeros(2, 2), torch.zeros(2)))
    weight, speed, target = torch.zeros(2, 2), torch.zeros(2, 2), OddsTarget()(labels, 2).float()
    bias, bias_speed = torch.zeros(2), torch.zeros(2)
    for step in range(3):
        off = ((features @ weight.T + bias).softmax(1) - target) / len(labels)
        speed, bias_speed = 0.9 * speed + off.T @ features, 0.9 * bias_speed + off.sum(0)
        rate = 0.3 * (1 + math.cos(math.pi * step / 3)) / 2
        weight, bias = weight - rate * speed, bias - rate * bias_speed
    torch.testing.assert_close(head.weight, weight)
    torch.testing.assert_close(head.bias, bias)


def test_same_seed_same_head() -> None:
    features, labels = long_tailed(0, [50, 20])
    start = LinearHead(torch.zeros(2, 2), torch.zeros(2))
    first, again, other = (RetrainHead(lr=0.1, epochs=2, seed=seed)(features, labels, start) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        RetrainHead(epochs=0)
    head = LinearHead(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(DataError, match="0 and 0"):
        RetrainHead()(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), head)
    with pytest.raises(DataError, match=r"0 \.\. 1"):
        RetrainHead()(torch.zeros(1, 3), torch.tensor([2]), head)
