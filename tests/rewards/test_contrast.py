"""Contrastive terms of the pair loss: their items, their views, and that a step may be cut anywhere."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.rewards.contrast import SimCSE, Swav
from finegrain.rewards.representation import draw_uniform
from finegrain.rewards.secrets_rm import SecretsRM
from finegrain.types import Pair, Side
from tests.rewards.batch_contrast import simcse_loss, swav_loss
from tests.rewards.test_representation import draw

WIDTH = 50


def features(rows: list[int], chosen: torch.Tensor, rejected: torch.Tensor, term: Any = None) -> Pair:
    """Pairs of answers of three tokens, of which the second is the last; the features stand on it."""
    mask = torch.tensor([[True, True, False]]).expand(len(rows), 3)

    def side(own: torch.Tensor) -> Side:
        junk = torch.full_like(own, 7.0)
        return Side(logp=torch.zeros(mask.shape, dtype=own.dtype), mask=mask, features=torch.stack([junk, own, junk], 1))

    columns = {"row": torch.tensor(rows, dtype=torch.float64)}
    modules = term.make_modules(WIDTH, torch.Generator().manual_seed(4)) if isinstance(term, Swav) else {}
    for module in modules.values():
        module.double()
    return Pair(sides={"chosen": side(chosen), "rejected": side(rejected)}, columns=columns, modules=modules)


def with_statistics(term: Any, pair: Pair) -> Pair:
    return replace(pair, statistics={name: found.value.detach() for name, found in term.statistics(pair).items()})


def dropped(items: torch.Tensor, rows: torch.Tensor, number: int) -> torch.Tensor:
    return torch.where(draw_uniform(rows, WIDTH, number) >= 0.2, items, 0.0)


def naive(term: Any, first: torch.Tensor, second: torch.Tensor, pair: Pair) -> torch.Tensor:
    if isinstance(term, SimCSE):
        return simcse_loss(first, second)
    return swav_loss(first, second, pair.modules["prototypes"].weight)


TERMS = (SimCSE(dropout=0.2), Swav(dropout=0.2, prototypes=3))


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_a_term_is_its_loss_of_dropped_out_differences(term: Any) -> None:
    """The differences of last tokens, each view with its own features left out."""
    chosen, rejected = draw(4, WIDTH), draw(4, WIDTH, seed=1)
    pair = with_statistics(term, features([0, 1, 2, 3], chosen, rejected, term))
    first, second = (dropped(chosen - rejected, torch.arange(4.0), k) for k in (0, 1))
    torch.testing.assert_close(term(pair), naive(term, first, second, pair), rtol=1e-10, atol=1e-10)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_answers_are_items_of_their_own(term: Any) -> None:
    """Both answers of every pair among the items, and the mean of the two for a pair."""
    chosen, rejected = draw(4, WIDTH), draw(4, WIDTH, seed=1)
    term = replace(term, items="answers")
    pair = with_statistics(term, features([0, 1, 2, 3], chosen, rejected, term))
    items = torch.stack([chosen, rejected], 1).flatten(0, 1)
    first, second = (dropped(items, torch.arange(8.0), k) for k in (0, 1))
    torch.testing.assert_close(term(pair), naive(term, first, second, pair).view(4, 2).mean(1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("items", ["difference", "answers"])
@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_a_row_finds_its_own_in_the_step(term: Any, items: Any) -> None:
    """The loss of some rows is the same, whichever rows of the step are at hand and in whatever order."""
    term = replace(term, items=items)
    rows = [3, 1, 8, 5]
    whole = with_statistics(term, features(rows, draw(4, WIDTH), draw(4, WIDTH, seed=1), term))
    want = term(whole)
    pick = [2, 0]
    part = replace(
        whole,
        sides={role: Side(logp=side.logp[pick], mask=side.mask[pick], features=side.features[pick]) for role, side in whole.sides.items()},
        columns={"row": whole.columns["row"][pick]},
    )
    torch.testing.assert_close(term(part), want[pick], rtol=1e-12, atol=1e-12)
    assert abs(float((want[2] - want[0]).detach())) > 1e-6


def test_simcse_of_one_pair_is_zero() -> None:
    pair = with_statistics(TERMS[0], features([5], draw(1, WIDTH), draw(1, WIDTH, seed=1)))
    assert float(TERMS[0](pair)) == pytest.approx(0.0, abs=1e-12)


def test_prototypes_have_directions_and_a_gradient() -> None:
    term = Swav(prototypes=5)
    made = [term.make_modules(WIDTH, torch.Generator().manual_seed(seed))["prototypes"].weight for seed in (0, 0, 1)]
    assert made[0].shape == (5, WIDTH)
    assert term.make_modules(WIDTH, torch.Generator().manual_seed(0))["prototypes"].bias is None
    torch.testing.assert_close(made[0].norm(dim=-1), torch.ones(5))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    pair = with_statistics(term, features([0, 1, 2], draw(3, WIDTH), draw(3, WIDTH, seed=1), term))
    (slope,) = torch.autograd.grad(term(pair).sum(), pair.modules["prototypes"].weight)
    assert slope.abs().max() > 0
    assert SecretsRM(contrast=term).make_modules is not None
    assert SecretsRM(contrast=SimCSE()).make_modules is None
    assert SecretsRM(contrast=term).needs == {"features"}


def test_views_keep_the_size_of_what_they_show() -> None:
    """What is kept is scaled up, so the mean over many rows is the item."""
    one = torch.ones(400, WIDTH, dtype=torch.float64)
    found = SimCSE(dropout=0.3)._view(features(list(range(400)), one, 0 * one), 0)
    assert float(found.mean()) == pytest.approx(1.0, abs=0.02)
    assert found.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]


def test_a_feature_drawn_at_the_share_itself_is_kept() -> None:
    draws = draw_uniform(torch.tensor([0.0]), WIDTH, 0)[0]
    one = torch.ones(1, WIDTH, dtype=torch.float64)
    shown = SimCSE(dropout=float(draws[3]))._view(features([0], one, 0 * one), 0)[0, 0] > 0
    assert shown.tolist() == (draws >= draws[3]).tolist()
    assert shown[3]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_a_loss_has_the_features_precision_whatever_the_step_is_kept_in(term: Any) -> None:
    pair = features([0, 1, 2], draw(3, WIDTH).float(), draw(3, WIDTH, seed=1).float(), term)
    whole = with_statistics(term, pair)
    wide = replace(whole, statistics={name: value.double() for name, value in whole.statistics.items()})
    assert (term(whole).dtype, term(wide).dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(term(wide), term(whole))


def test_numbers_of_items() -> None:
    pair = features([4, 0], draw(2, WIDTH), draw(2, WIDTH, seed=1))
    assert SimCSE()._numbers(pair).tolist() == [[4.0], [0.0]]
    assert SimCSE(items="answers")._numbers(pair).tolist() == [[8.0, 9.0], [0.0, 1.0]]


@pytest.mark.parametrize("items", ["difference", "answers"])
def test_the_code_temperature_and_its_rounds_are_read(items: Any) -> None:
    term = Swav(items=items, prototypes=3)
    pair = features([0, 1, 2], draw(3, WIDTH), draw(3, WIDTH, seed=1), term)
    losses = []
    for changed in (term, replace(term, code_temperature=0.5), replace(term, iterations=1), replace(term, temperature=0.5)):
        losses.append(float(changed(with_statistics(changed, pair)).sum().detach()))
    assert len(set(losses)) == 4


def test_settings_at_their_bounds_are_taken() -> None:
    assert (SimCSE(weight=0.0).weight, Swav(prototypes=2, iterations=1).prototypes) == (0.0, 2)


@pytest.mark.parametrize("change", [{"dropout": 0.0}, {"dropout": 1.0}, {"temperature": 0.0}, {"weight": -1.0}])
@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_bad_settings(term: Any, change: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="a setting of"):
        replace(term, **change)


@pytest.mark.parametrize("change", [{"prototypes": 1}, {"iterations": 0}, {"code_temperature": 0.0}])
def test_bad_settings_of_prototypes(change: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="a setting of Swav"):
        Swav(**change)
