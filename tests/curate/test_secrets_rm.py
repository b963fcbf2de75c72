"""Voting on pairs and what it repairs."""

import numpy as np
import pytest
import torch

from finegrain.curate.repairs import Flip, FlipMargin, Margin, Soft, SoftMargin
from finegrain.curate.secrets_rm import Curated, SecretsRM
from finegrain.curate.strength import Strength, compute_strength, deciles
from finegrain.curate.votes import Linear, Whole, bradley_terry_fit, linear_margins, split_in_halves
from finegrain.errors import DataError, UsageError
from finegrain.ops.proportions import wilson
from finegrain.rewards.bradley_terry import bradley_terry_loss


def given(*mean: float) -> Strength:
    values = np.array(mean)
    return Strength(values, np.zeros_like(values), np.ones(len(values), dtype=int))


def test_by_hand() -> None:
    """Margins (1, -1) and (3, 9), standard deviations 1 and 3, are brought to 2: (2, -2) and (2, 6)."""
    found = compute_strength(np.array([[1.0, -1.0], [3.0, 9.0]]))
    np.testing.assert_allclose(found.mean, [2.0, 2.0])
    np.testing.assert_allclose(found.std, [0.0, 4.0])
    assert found.votes.tolist() == [2, 2]


def test_one_member_is_its_own_margins() -> None:
    margins = np.array([[0.3, -1.7, 2.2]])
    found = compute_strength(margins)
    assert found.mean.tolist() == margins[0].tolist()
    assert found.std.tolist() == [0.0, 0.0, 0.0]


def test_scale_and_order_of_members_do_not_matter() -> None:
    """Strength keeps its order when one member shouts, and is the same whichever member comes first."""
    margins = np.random.default_rng(0).normal(size=(4, 30))
    one, loud = compute_strength(margins), compute_strength(margins * np.array([[1.0], [1000.0], [1.0], [1.0]]))
    np.testing.assert_allclose(loud.mean / loud.mean[0], one.mean / one.mean[0])
    np.testing.assert_allclose(compute_strength(margins[::-1]).mean, one.mean)
    assert np.abs(margins.mean(0) / margins.mean(0)[0] - (margins * [[1.0], [1000.0], [1.0], [1.0]]).mean(0)).max() > 1, "unscaled means would differ"


def test_missing_votes() -> None:
    """NaN is no vote; a pair without votes and a member without an opinion are refused."""
    nan = np.nan
    found = compute_strength(np.array([[1.0, nan, -1.0, nan], [nan, 1.0, nan, -1.0]]))
    assert found.mean.tolist() == [1.0, 1.0, -1.0, -1.0]
    assert found.votes.tolist() == [1, 1, 1, 1]
    with pytest.raises(DataError, match="pair 1"):
        compute_strength(np.array([[1.0, nan, 2.0]]))
    for silent in ([5.0, 5.0], [nan, nan]):
        with pytest.raises(DataError, match="member 1"):
            compute_strength(np.array([[1.0, 2.0], silent]))


def test_an_infinite_margin_is_no_vote() -> None:
    found = compute_strength(np.array([[1.0, np.inf, -1.0], [1.0, 2.0, 3.0]]))
    assert found.votes.tolist() == [2, 1, 2]
    assert np.isfinite(found.mean).all()
    assert found.std[1] == 0.0


def test_deciles() -> None:
    assert deciles(np.arange(11.0)) == pytest.approx(list(range(11)))


def test_repairs_by_hand() -> None:
    u = given(-2.0, 0.5, 1.0, -0.5, 3.0)
    assert Flip(share=0.4)(u).columns["flip"].tolist() == [1, 0, 0, 1, 0]
    assert Flip(share=0.4)(u).reasons[0].startswith("flipped")
    assert Flip(share=0.4)(u).reasons[1] == ""
    assert Margin(percentile=100.0)(u).columns["margin"].tolist() == u.mean.tolist()
    both = FlipMargin(flip=Flip(share=0.4), margin=Margin(percentile=100.0))(u).columns
    assert both["margin"].tolist() == [2.0, 0.5, 1.0, 0.5, 3.0], "|u| where a negative strength was flipped"
    assert both["flip"].tolist() == [1, 0, 0, 1, 0]
    assert Soft(smoothing=0.25)(u).columns["label_prob"].tolist() == [0.75, 1, 1, 0.75, 1]
    assert set(SoftMargin()(u).columns) == {"label_prob", "margin"}


def test_margins_are_clipped_on_both_sides() -> None:
    u = given(*np.linspace(-1, 1, 99), -50.0)
    found = Margin(percentile=95.0)(u)
    bound = float(np.percentile(np.abs(u.mean), 95))
    assert bound < 2
    assert found.columns["margin"].min() == -bound
    assert found.columns["margin"].max() <= bound
    assert found.reasons[-1].startswith("margin clipped")


def test_reasons_by_hand() -> None:
    """|u| of 50, 0.5, 1 and 0.5 have the median 0.75; margins at the bound itself are not cut."""
    u = given(-50.0, 0.5, 1.0, -0.5)
    flipped, cut, doubted = (
        "flipped: among the 50% with the lowest strength",
        "margin clipped to the percentile",
        "label probability 0.75: negative strength",
    )
    both = FlipMargin(flip=Flip(share=0.5), margin=Margin(percentile=50.0))(u)
    assert both.columns["margin"].tolist() == [0.75, 0.5, 0.75, 0.5]
    assert both.reasons == [f"{flipped}; {cut}", "", cut, flipped]
    soft = SoftMargin(soft=Soft(smoothing=0.25), margin=Margin(percentile=50.0))(u)
    assert soft.columns["label_prob"].tolist() == [0.75, 1.0, 1.0, 0.75]
    assert soft.columns["margin"].tolist() == [-0.75, 0.5, 0.75, -0.5]
    assert soft.reasons == [f"{doubted}; {cut}", "", cut, doubted]
    assert Margin(percentile=100.0)(u).reasons == [""] * 4


def test_of_equal_strengths_the_first_are_flipped() -> None:
    assert Flip(share=0.5)(given(*[1.0] * 40)).columns["flip"].tolist() == [1.0] * 20 + [0.0] * 20
    assert Flip(share=0.25)(given(*[1.0, 0.0] * 40)).columns["flip"].tolist() == [0.0, 1.0] * 20 + [0.0] * 40
    assert not Flip(share=0.0)(given(-1.0, 1.0)).columns["flip"].any()


def test_flipping_all_negative_pairs_turns_the_loss_around() -> None:
    """f = -1 is the exchanged pair, to the bit."""
    u = given(-2.0, 0.5)
    flip = torch.from_numpy(1 - 2 * Flip(share=0.5)(u).columns["flip"])
    z = torch.tensor([0.7, 0.2], dtype=torch.float64)
    got = bradley_terry_loss(z, flip=flip)
    assert got.tolist() == bradley_terry_loss(torch.tensor([-0.7, 0.2], dtype=torch.float64)).tolist()


def test_halves_keep_prompts_together_and_give_every_pair_the_same_votes() -> None:
    prompts = np.array([7, 7, 3, 1, 9, 9, 9, 4])
    trained = split_in_halves(prompts, splits=3, seed=0)
    assert trained.shape == (6, 8)
    assert (~trained).sum(0).tolist() == [3] * 8
    for row in trained:
        assert row[0] == row[1]
        assert row[4] == row[5] == row[6]
        assert 0 < row.sum() < 8
    assert not np.array_equal(trained, split_in_halves(prompts, splits=3, seed=1))
    assert not np.array_equal(trained[0], trained[2])
    assert split_in_halves(np.array([5, 5, 1, 2, 3, 4]), splits=2, seed=0)[:, 1:].sum(1).tolist() == [3, 2, 3, 2], "of five prompts three and two"
    assert split_in_halves(np.arange(4), splits=1, seed=0).sum(1).tolist() == [2, 2]
    with pytest.raises(DataError, match="found 3 prompts"):
        split_in_halves(np.array([0, 1, 2, 2, 1, 0]), splits=1, seed=0)


def test_who_trains_and_who_votes() -> None:
    """Halves: a member votes where it did not train. All: every member trains and votes everywhere."""
    prompts = np.arange(8)
    ours, paper = SecretsRM(splits=2), SecretsRM(splits=2, train_on="all", votes=Whole())
    trained = ours.trained(prompts, 3)
    assert np.array_equal(trained, split_in_halves(prompts, splits=2, seed=3))
    assert np.array_equal(ours.voted(trained), ~trained)
    everywhere = paper.trained(prompts, 0)
    assert everywhere.shape == (4, 8)
    assert everywhere.all()
    assert paper.voted(everywhere).all()
    with pytest.raises(UsageError, match="identical"):
        SecretsRM(train_on="all")


def test_linear_fit_agrees_with_sklearn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    d = rng.normal(np.array([0.5, 0, 0, -0.2]), size=(200, 4))
    mirrored, labels = np.concatenate([d, -d]), np.repeat([1, 0], 200)
    other = LogisticRegression(C=1 / (0.1 * 400), fit_intercept=False, tol=1e-10, max_iter=1000).fit(mirrored, labels)
    np.testing.assert_allclose(bradley_terry_fit(d, ridge=0.1), other.coef_[0], atol=1e-4)


def test_linear_members_see_no_unit_and_no_empty_feature() -> None:
    """And the setting is the penalty: a large one leaves small margins."""
    d = np.random.default_rng(0).normal(size=(12, 3))
    d[:, 2] = 0.0
    trained = split_in_halves(np.arange(12), 1, 0)
    found = Linear(ridge=0.5)(d, trained)
    np.testing.assert_array_equal(found, linear_margins(d, trained, ridge=0.5))
    assert np.array_equal(np.isnan(found), trained)
    np.testing.assert_allclose(linear_margins(d * [10.0, 0.1, 1.0], trained, ridge=0.5), found, rtol=1e-5)
    assert np.nanmax(np.abs(Linear(ridge=50.0)(d, trained))) < 0.1 * np.nanmax(np.abs(found))


def test_summary_by_hand() -> None:
    margins = np.array([[1.0, -1.0], [3.0, 9.0]])
    settings = SecretsRM(repair=FlipMargin(flip=Flip(share=0.5), margin=Margin(percentile=100.0)))
    out = settings(margins)
    assert out.margins is margins
    assert {name: values.tolist() for name, values in out.columns.items()} == {
        "strength_mean": [2.0, 2.0],
        "strength_std": [0.0, 4.0],
        "flip": [1.0, 0.0],
        "margin": [-2.0, 2.0],
    }
    share = wilson([0.0, 0.0])
    assert out.summary() == {
        "negative_share": {"mean": 0.0, "low": share.low, "high": share.high, "rows": 2},
        "strength_deciles": [2.0] * 11,
        "spread_deciles": pytest.approx([0.4 * step for step in range(11)]),
        "votes_per_pair": [2, 2],
        "changed": {"flip": 1, "margin": 2},
    }
    uneven = SecretsRM(repair=Soft())(np.array([[1.0, -1.0, np.nan], [3.0, -1.0, -3.0]])).summary()
    assert uneven["votes_per_pair"] == [1, 2]
    assert uneven["changed"] == {"label_prob": 2}
    columns = {"flip": np.array([0.0, 1.0, 1.0]), "margin": np.array([0.0, 0.0, 1.0]), "label_prob": np.array([1.0, 1.0, 0.5])}
    assert Curated(given(1.0, 2.0, 3.0), columns, [""] * 3, np.ones((1, 3))).summary()["changed"] == {"flip": 2, "margin": 1, "label_prob": 1}


def noisy(seed: int, share: float, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Differences of features with true weights, and which labels were flipped."""
    rng = np.random.default_rng(seed)
    d = rng.normal(size=(800, width))
    d *= np.sign(d @ rng.normal(size=width))[:, None]
    flipped = rng.random(800) < share
    return np.where(flipped[:, None], -d, d), flipped


def test_wrong_labels_have_the_least_strength() -> None:
    d, flipped = noisy(0, 0.2)
    out = SecretsRM(repair=Flip(share=0.2))(linear_margins(d, split_in_halves(np.arange(800), 5, 0), ridge=0.01))
    found = out.columns["flip"].astype(bool)
    assert found[flipped].mean() > 0.7
    summary = out.summary()
    assert summary["changed"] == {"flip": 160}
    assert 0.15 < summary["negative_share"]["low"] < summary["negative_share"]["high"] < 0.3
    assert summary["votes_per_pair"] == [5, 5]


def test_models_that_learned_the_labels_by_heart_find_none() -> None:
    """With as many features as pairs a model that trained on a pair makes its margin positive, whatever the label."""
    d, flipped = noisy(0, 0.2, width=800)
    by_heart = d @ bradley_terry_fit(d, ridge=1e-4)
    assert (by_heart < 0).mean() == 0.0
    assert compute_strength(linear_margins(d, split_in_halves(np.arange(800), 5, 0), ridge=1e-4)).negative[flipped].mean() > 0.5


def test_members_never_vote_on_their_own_pairs() -> None:
    """A pair's votes do not depend on its own label."""
    d, _ = noisy(1, 0.2)
    trained = split_in_halves(np.arange(800), 2, 0)
    changed = d.copy()
    changed[5] *= -1
    one, two = linear_margins(d, trained, ridge=0.01), linear_margins(changed, trained, ridge=0.01)
    voted = ~trained[:, 5]
    assert np.isnan(one[trained]).all()
    np.testing.assert_allclose(two[voted, 5], -one[voted, 5], rtol=1e-12)
    others = ~trained[~voted] & (np.arange(800) != 5)
    assert (one[~voted][others] != two[~voted][others]).any(), "the members that trained on it changed"


def test_bad_settings() -> None:
    for make in (
        lambda: Flip(share=1.0),
        lambda: Flip(share=-0.1),
        lambda: Margin(percentile=0.0),
        lambda: Margin(percentile=100.5),
        lambda: Soft(smoothing=1.5),
        lambda: Soft(smoothing=-0.1),
        lambda: SecretsRM(splits=0),
        lambda: Linear(ridge=0.0),
    ):
        with pytest.raises(UsageError):
            make()


def test_settings_at_their_bounds_are_taken() -> None:
    assert (Flip(share=0.0).share, Margin(percentile=0.5).percentile, Margin(percentile=100.0).percentile) == (0.0, 0.5, 100.0)
    assert (Soft(smoothing=0.0).smoothing, Soft(smoothing=1.0).smoothing, SecretsRM(splits=1).splits) == (0.0, 1.0, 1)
