"""mm-calibration: bounds, the largest score behind them, the detector, and the search on cached features."""

import pytest
import torch
from torch import Tensor, nn

from finegrain.errors import DataError, UsageError
from finegrain.rewards.clipped_head import ClippedHead, FitBounds, SameLabels, SameScores
from finegrain.rewards.mm_calibration import (
    AdaptivePrice,
    Bounds,
    clip_features,
    detect,
    detection_threshold,
    keep_labels,
    keep_scores,
    largest_margin,
    largest_score,
    margin,
    margin_gap,
    quantile_bounds,
)


def box(*bounds: tuple[float, float]) -> Bounds:
    low, high = torch.tensor(bounds, dtype=torch.float64).T
    return Bounds(low, high)


def corners(bounds: Bounds) -> Tensor:
    return torch.cartesian_prod(*torch.stack([bounds.low, bounds.high], 1))


def test_worked_largest_score() -> None:
    assert largest_score(torch.tensor([2.0, -1.0], dtype=torch.float64), box((-1, 3), (-2, 1))).item() == 8.0


def test_the_largest_score_is_reached_at_a_corner_and_never_passed() -> None:
    weight, bounds = torch.randn(5, dtype=torch.float64), box((-1, 2), (0, 3), (-2, -1), (1, 1), (-4, 0.5))
    top = largest_score(weight, bounds)
    torch.testing.assert_close(top, (corners(bounds) @ weight).max())
    features = 5 * torch.randn(500, 5, dtype=torch.float64)
    assert (clip_features(features, bounds) @ weight <= top + 1e-12).all()
    assert (features @ weight > top).any()


def test_shrinking_a_bound_never_raises_it() -> None:
    weight, bounds = torch.randn(3, dtype=torch.float64), box((-1, 2), (0, 3), (-2, 1))
    before = largest_score(weight, bounds)
    for unit in range(3):
        step = torch.zeros(3, dtype=torch.float64).index_fill(0, torch.tensor(unit), 0.4)
        assert largest_score(weight, Bounds(bounds.low + step, bounds.high)) <= before
        assert largest_score(weight, Bounds(bounds.low, bounds.high - step)) <= before


def test_infinite_bounds_change_nothing_and_clipping_twice_is_clipping_once() -> None:
    features = torch.randn(20, 3)
    free = Bounds(torch.full((3,), -torch.inf), torch.full((3,), torch.inf))
    assert torch.equal(clip_features(features, free), features)
    assert largest_score(torch.tensor([0.0, 0.0, 0.0]), free).item() == 0.0
    bounds = Bounds(torch.full((3,), -0.5), torch.full((3,), 0.3))
    once = clip_features(features, bounds)
    assert torch.equal(clip_features(once, bounds), once)
    assert torch.equal(once, features.clamp(-0.5, 0.3))


def test_a_bound_learns_only_from_features_beyond_it() -> None:
    low, high = torch.tensor([-1.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
    features = torch.tensor([[-3.0], [-1.0], [0.0], [2.0], [5.0], [7.0]], requires_grad=True)
    grads = torch.autograd.grad(clip_features(features, Bounds(low, high)).sum(), [low, high, features])
    assert grads[0].item() == 1
    assert grads[1].item() == 2
    assert grads[2].flatten().tolist() == [0, 1, 1, 1, 0, 0], "at a tie the feature keeps it"


def test_largest_margin_bounds_every_margin_and_is_exact_for_two_classes() -> None:
    weight, bias, bounds = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64), box((-1, 2), (0, 3), (-2, 1), (0, 1))
    logits = corners(bounds) @ weight.T + bias
    top = largest_margin(weight, bias, bounds)
    for cls in range(3):
        assert (margin(logits, torch.full((16,), cls)) <= top[cls] + 1e-12).all()
    two = corners(bounds) @ weight[:2].T + bias[:2]
    torch.testing.assert_close(largest_margin(weight[:2], bias[:2], bounds)[0], margin(two, torch.zeros(16, dtype=torch.long)).max())


def test_keeping_scores_has_its_optimum_at_no_clipping() -> None:
    features, weight = torch.randn(50, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    wide, narrow = quantile_bounds(features, 1.0), quantile_bounds(features, 0.9)
    assert keep_scores(clip_features(features, wide) @ weight, features @ weight).max() == 0
    assert keep_scores(clip_features(features, narrow) @ weight, features @ weight).mean() > 0
    got = keep_scores(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]))
    assert got.tolist() == [2.5]
    torch.testing.assert_close(keep_labels(torch.zeros(1, 4), torch.tensor([2])), torch.tensor([4.0]).log())


def test_quantiles_are_of_each_unit() -> None:
    """Of 0, 1, ... 4 and ten times as much, a quarter on either side."""
    found = quantile_bounds(torch.arange(5.0)[:, None] * torch.tensor([1.0, 10.0]), 0.75)
    assert (found.low.tolist(), found.high.tolist()) == ([1.0, 10.0], [3.0, 30.0])


def test_margin_and_gap_worked() -> None:
    original, clipped = torch.tensor([[5.0, 1.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0]])
    assert margin(original, torch.tensor([0])).item() == 3.0
    assert margin(original, torch.tensor([1])).item() == -4.0
    assert margin_gap(original, clipped).item() == 5.0
    assert detection_threshold(torch.tensor([1.0, 3.0]), 2.0) == 4.0
    assert detection_threshold(torch.tensor([1.0, 3.0])) == pytest.approx(2 + 2.576), "the threshold flags 1 in 200 of a normal gap"


def test_detection_by_hand() -> None:
    """Gaps 5, 5 and 0: at the threshold itself nothing is flagged, above it the first class is forbidden and the clipped logits speak."""
    original = torch.tensor([[5.0, 1.0, 2.0], [1.0, 5.0, 2.0], [3.0, 0.0, 1.0]])
    clipped = torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 3.0], [3.0, 0.0, 1.0]])
    assert not detect(original, clipped, 5.0).flagged.any()
    found = detect(original, clipped, 4.0)
    assert found.gap.tolist() == [5.0, 5.0, 0.0]
    assert found.flagged.tolist() == [True, True, False]
    assert found.predicted.tolist() == [2, 2, 0]
    assert found.logits.tolist() == [[-999.0, 0.0, 3.0], [0.0, -999.0, 3.0], [3.0, 0.0, 1.0]]
    assert detection_threshold(torch.tensor([0.0, 4.0]), 3.0) == 8.0, "mean 2, standard deviation 2"


def test_the_ceiling_has_the_head_s_bias() -> None:
    """Weights 2 and -1 in [0, 3] x [-4, 1]: 6 + 4, plus the bias where there is one; a score of one answer keeps its axis."""
    bounds = Bounds(torch.tensor([0.0, -4.0]), torch.tensor([3.0, 1.0]))
    for bias, want in ((None, 10.0), (0.5, 10.5)):
        head = nn.Linear(2, 1, bias=bias is not None)
        with torch.no_grad():
            head.weight.copy_(torch.tensor([[2.0, -1.0]]))
            if bias is not None:
                head.bias.fill_(bias)
        clipped = ClippedHead(head, bounds)
        assert clipped.ceiling() == want
        far = torch.tensor([[9.0, -9.0]])
        assert clipped(far).tolist() == [want]
        assert clipped.gap(far).tolist() == [17.0]


def test_detector_limits() -> None:
    original, clipped = torch.randn(2, 40, 4)
    never, always = detect(original, clipped, float("inf")), detect(original, clipped, float("-inf"))
    assert torch.equal(never.logits, original)
    assert not never.flagged.any()
    assert always.flagged.all()
    assert (always.predicted != original.argmax(1)).all()
    with pytest.raises(DataError, match="clean"):
        detection_threshold(torch.zeros(0))


def test_price() -> None:
    price = AdaptivePrice()
    assert price(1.0, 0.95) == 1.2
    assert price(1.2, 0.94) == pytest.approx(1.0)
    with pytest.raises(UsageError, match="setting of AdaptivePrice"):
        AdaptivePrice(factor=0.5)


def pairs(rows: int, outlier: float) -> tuple[Tensor, Tensor, Tensor]:
    """Features of clean pairs, of which some units reach far on rare answers, and a head that knows the better one."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([1.0, -0.5, 0.8, 0.3, -1.0, 0.6])
    rejected = torch.randn(rows, 6, generator=generator)
    chosen = rejected + 0.6 * weight + 0.5 * torch.randn(rows, 6, generator=generator)
    chosen[0] += outlier * weight
    return weight, chosen, rejected


def test_search_lowers_the_ceiling_and_keeps_clean_pairs() -> None:
    weight, chosen, rejected = pairs(300, outlier=10.0)
    got = FitBounds()(weight, chosen, rejected)
    assert got.ceiling < 0.9 * got.ceiling_before
    assert got.agreement >= 0.95
    assert (got.bounds.low <= got.bounds.high).all()
    assert got.ceiling == pytest.approx(largest_score(weight, got.bounds).item())
    stricter = FitBounds(price=AdaptivePrice(agreement=1.0))(weight, chosen, rejected)
    assert stricter.agreement == 1.0 or stricter.ceiling == stricter.ceiling_before
    assert stricter.ceiling > got.ceiling
    assert stricter.shift < got.shift


def test_a_high_price_drives_the_box_together_and_agreement_stops_it() -> None:
    weight, chosen, rejected = pairs(100, outlier=0.0)
    free = FitBounds(price=AdaptivePrice(start=1e3, factor=1.0, agreement=0.0))(weight, chosen, rejected)
    held = FitBounds(price=AdaptivePrice(start=1e3, factor=1.0))(weight, chosen, rejected)
    assert free.agreement < 0.5
    assert (free.bounds.low <= free.bounds.high).all()
    assert held.agreement >= 0.95
    assert free.ceiling < held.ceiling <= held.ceiling_before


def test_one_step_of_the_search_by_hand() -> None:
    """Units of spread 2 and 6 under weights 1 and -1: the price moves the bound that each weight prefers, by a tenth of the spread, and no other.

    No pair changes its order, which is enough for an agreement of 1.
    """
    weight, chosen, rejected = torch.tensor([1.0, -1.0]), torch.tensor([[5.0, 0.0]]), torch.tensor([[1.0, 12.0]])
    got = FitBounds(start=1.0, epochs=1, price=AdaptivePrice(start=1e3, agreement=1.0))(weight, chosen, rejected)
    torch.testing.assert_close(got.bounds, Bounds(torch.tensor([1.0, 0.6]), torch.tensor([4.8, 12.0])))
    assert (got.ceiling_before, got.ceiling, got.agreement) == (5.0, pytest.approx(4.2), 1.0)


def test_the_search_starts_at_its_quantiles() -> None:
    weight, chosen, rejected = pairs(20, outlier=0.0)
    want = largest_score(weight, quantile_bounds(torch.cat([chosen, rejected]), 0.7)).item()
    assert FitBounds(start=0.7, epochs=1)(weight, chosen, rejected).ceiling_before == want


def test_bounds_that_have_crossed_meet_in_the_middle() -> None:
    """In units of 2: the low bounds 0 + 2, 0 + 6, 0 - 2, the high ones 4 - 2, 4 - 8, 4 + 2."""
    steps = [torch.tensor([1.0, 3.0, -1.0]), torch.tensor([-1.0, -4.0, 1.0])]
    found = FitBounds()._bounds(Bounds(torch.zeros(3), torch.full((3,), 4.0)), steps, torch.full((3,), 2.0))
    assert (found.low.tolist(), found.high.tolist()) == ([2.0, 1.0, -2.0], [2.0, 1.0, 6.0])


def test_the_price_changes_after_the_warmup_and_then_every_few_steps() -> None:
    steps, changes = 0, []

    class Counting(SameScores):
        def __call__(self, *scores: Tensor) -> Tensor:
            nonlocal steps
            steps += 1
            return super().__call__(*scores)

    class Noting(AdaptivePrice):
        def __call__(self, price: float, agreement: float) -> float:
            changes.append(steps - 1)
            return super().__call__(price, agreement)

    FitBounds(epochs=12, warmup=3, every=4, price=Noting())(*pairs(10, outlier=0.0), Counting())
    assert changes == [3, 7, 11]


def test_what_is_kept_by_hand() -> None:
    """Scores 2 and 0 that were 3 and 1: each moved by 1; the pair's cross-entropy is log(1 + e^-2), whatever they were."""
    now, was = (torch.tensor([2.0]), torch.tensor([0.0])), (torch.tensor([3.0]), torch.tensor([1.0]))
    assert SameScores()(*now, *was).item() == 1.0
    assert SameLabels()(*now, *was).item() == pytest.approx(0.126928, abs=1e-6)
    assert SameScores()(*was, *was).item() == 0.0


def test_labels_of_reversed_pairs_pull_the_other_way() -> None:
    """With the sides swapped, keeping scores gives the same bounds, keeping labels others."""
    weight, chosen, rejected = pairs(100, outlier=0.0)
    scores, labels = (
        [FitBounds(epochs=40)(weight, *both, keep) for both in ((chosen, rejected), (rejected, chosen))] for keep in (SameScores(), SameLabels())
    )
    torch.testing.assert_close(scores[0].bounds.high, scores[1].bounds.high)
    assert labels[0].shift != pytest.approx(labels[1].shift, rel=1e-2)


def test_clipped_head() -> None:
    head, features = nn.Linear(4, 1), torch.randn(30, 4)
    free = ClippedHead(head, Bounds(torch.full((4,), -torch.inf), torch.full((4,), torch.inf)))
    torch.testing.assert_close(free(features), head(features).squeeze(1), rtol=0, atol=0)
    assert free.gap(features).eq(0).all()
    bounds = quantile_bounds(features, 0.9)
    clipped = ClippedHead(head, bounds)
    assert (clipped(100 * features) <= clipped.ceiling() + 1e-5).all()
    assert clipped(100 * features).max().item() > 0.5 * clipped.ceiling()
    torch.testing.assert_close(clipped.gap(features), head(features).squeeze(1) - clipped(features))
    assert set(clipped.state_dict()) == {"low", "high", "head.weight", "head.bias"}
    assert {name for name, _ in clipped.named_parameters()} == {"head.weight", "head.bias"}


def test_bad_input() -> None:
    with pytest.raises(DataError, match="one score"):
        ClippedHead(nn.Linear(4, 2), quantile_bounds(torch.randn(5, 4)))
    with pytest.raises(DataError, match="do not fit"):
        ClippedHead(nn.Linear(3, 1), quantile_bounds(torch.randn(5, 4)))
    with pytest.raises(UsageError, match=r"\(0\.5, 1\]"):
        quantile_bounds(torch.randn(5, 4), 0.5)
    with pytest.raises(UsageError, match=r"\(0\.5, 1\], got 1.01"):
        quantile_bounds(torch.randn(5, 4), 1.01)
    with pytest.raises(DataError, match="finite features"):
        quantile_bounds(torch.full((5, 4), torch.nan))
    with pytest.raises(UsageError, match="setting of FitBounds"):
        FitBounds(lr=0.0)
    with pytest.raises(UsageError):
        FitBounds(start=0.4)
