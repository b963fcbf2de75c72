"""Nominal, least, mixed and priced rewards: worked numbers and the identities between them."""

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.ops.aggregate import MeanOfPenalties, MeanReward, MinusStd, MinusVariance, Nominal, NominalMix, PerBatch, PerSample
from finegrain.types import Scored


def scored(members: int = 4, rows: int = 30, seed: int = 0) -> Scored:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(members, rows, generator=generator, dtype=torch.float64)
    return Scored(means.mean(0), means.std(0) if members > 1 else None, means, torch.rand(members, rows, generator=generator, dtype=torch.float64))


def of(means: list[float], stds: list[float]) -> Scored:
    return Scored(torch.tensor(means).mean(0, keepdim=True), None, torch.tensor(means)[:, None], torch.tensor(stds)[:, None])


def test_worked() -> None:
    low = of([1.0, 0.2, 0.7], [0.5, 0.1, 0.3])
    assert Nominal()(low).item() == pytest.approx(0.2)
    assert [NominalMix(share=share)(low).item() for share in (0.0, 0.4, 1.0)] == pytest.approx([0.2] * 3)
    high = of([1.0, 0.2, 0.7], [0.1, 0.5, 0.3])
    assert Nominal()(high).item() == 1.0
    assert NominalMix(share=0.4)(high).item() == pytest.approx(0.52)
    tie = of([1.0, 0.2], [0.3, 0.3])
    assert Nominal()(tie).item() == 1.0, "of equally sure members the first"


@pytest.mark.parametrize("worst", [PerSample(), PerBatch()], ids=lambda worst: type(worst).__name__)
def test_identities(worst: PerSample | PerBatch) -> None:
    some = scored()
    nominal, least = Nominal()(some), worst(some)
    one, none, half = (NominalMix(share=share, worst=worst)(some) for share in (1.0, 0.0, 0.5))
    assert torch.equal(one, nominal)
    assert torch.equal(none, least)
    torch.testing.assert_close(half, (nominal + least) / 2)
    assert some.members is not None
    moved = some._replace(mean=some.mean + 3, members=some.members + 3)
    torch.testing.assert_close(NominalMix(worst=worst)(moved), NominalMix(worst=worst)(some) + 3)
    order = torch.tensor([2, 0, 3, 1])
    assert some.member_std is not None
    shuffled = some._replace(members=some.members[order], member_std=some.member_std[order])
    assert torch.equal(NominalMix(worst=worst)(shuffled), NominalMix(worst=worst)(some))


def test_a_mix_with_the_least_member_is_never_above_nominal() -> None:
    some = scored()
    assert (NominalMix(share=0.3)(some) <= Nominal()(some) + 1e-12).all()


def test_one_member_is_itself_to_the_bit() -> None:
    some = scored(members=1)
    for aggregate in (MeanReward(), PerSample(), PerBatch(), Nominal(), *(NominalMix(share=share) for share in (0.0, 0.4, 1.0))):
        assert some.members is not None
        assert torch.equal(aggregate(some), some.members[0])


def test_order_of_the_minima() -> None:
    """E min <= min E <= E mean."""
    some = scored()
    assert PerSample()(some).mean() < PerBatch()(some).mean() < MeanReward()(some).mean()


def test_prices() -> None:
    some = Scored(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 2.0]))
    assert MinusStd(k=2.0)(some).tolist() == [0.0, -2.0]
    assert MinusVariance(k=2.0)(some).tolist() == [0.5, -6.0]
    assert torch.equal(MinusStd(k=0.0)(some), MeanReward()(some))
    two = of([1.0, 3.0], [0.5, 1.5])
    assert MeanOfPenalties(k=2.0)(two).item() == pytest.approx(2.0 - 2.0)
    assert MeanOfPenalties(k=0.0)(two).item() == MeanReward()(two).item()


@pytest.mark.parametrize("aggregate", [MinusStd(), MinusVariance(), PerSample(), PerBatch(), Nominal(), NominalMix(), MeanOfPenalties()])
def test_what_is_unknown_has_no_price(aggregate: MinusStd) -> None:
    with pytest.raises(UsageError, match=r"head:|posterior"):
        aggregate(Scored(torch.zeros(2)))


@pytest.mark.parametrize("bad", [-1.0, float("inf"), float("nan")])
def test_bad_settings(bad: float) -> None:
    for make in (lambda: MinusStd(k=bad), lambda: MinusVariance(k=bad), lambda: MeanOfPenalties(k=bad), lambda: NominalMix(share=bad)):
        with pytest.raises(UsageError):
            make()
