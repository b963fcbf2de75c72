"""pngd: its gradient against a naive loop, the promise for one pair, the length of its steps, and chosen answers that rise where dpo's fall."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finegrain.configure import from_json, to_json
from finegrain.objectives.dpo import DPO
from finegrain.objectives.ipo import IPO
from finegrain.objectives.pngd import PNGD, LossLength, SlopeLength
from finegrain.objectives.simpo import SimPO
from finegrain.types import Pair, RowLoss, Side
from tests.golden.entanglement import toy_logps

WORDS, WIDTH, PROMPT = 20, 8, 3


class Toy:
    """A small language model and pairs of answers that differ in their first token alone."""

    def __init__(self, seed: int, suffix: int = 12, pairs: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.parameters = [nn.Parameter(torch.randn(WORDS, WIDTH, generator=generator, dtype=torch.float64)) for _ in range(2)]
        draw = lambda count: torch.randint(0, WORDS, (count,), generator=generator).tolist()
        self.rows = []
        for _ in range(pairs):
            prompt, words, tail = draw(PROMPT), torch.randperm(WORDS, generator=generator)[:2].tolist(), draw(suffix)
            self.rows.append([[*prompt, word, *tail] for word in words])
        self.start = [[logp.detach() for logp in row] for row in self.logps()]

    def logps(self) -> list[list[Tensor]]:
        """Of every row, both answers' log-probabilities."""
        return [[toy_logps(*self.parameters, ids, PROMPT) for ids in row] for row in self.rows]

    def pair(self) -> Pair:
        """All rows under the parameters as they stand."""
        live, sides = self.logps(), {}
        for place, role in enumerate(("chosen", "rejected")):
            logp, reference = (torch.stack([row[place] for row in rows]) for rows in (live, self.start))
            sides[role] = Side(logp=logp, ref_logp=reference, mask=torch.ones_like(logp, dtype=torch.bool))
        return Pair(sides=sides)

    def step(self, rate: float, objective: Any) -> None:
        """One step of plain gradient descent."""
        pair = self.pair()
        found = (
            rule_of(objective, pair, self.parameters) if isinstance(objective, PNGD) else torch.autograd.grad(objective(pair).sum(), self.parameters)
        )
        with torch.no_grad():
            for parameter, part in zip(self.parameters, found, strict=True):
                parameter -= rate * part

    def changes(self) -> Tensor:
        """(rows, 2) change of both answers' log-probabilities since the start."""
        both = zip(self.logps(), self.start, strict=True)
        return torch.tensor([[float((now - then).detach().sum()) for now, then in zip(*row, strict=True)] for row in both])


def rule_of(objective: PNGD, pair: Pair, parameters: list[Any], share: Sequence[float] | None = None) -> list[Tensor]:
    value = objective(pair)
    shares = torch.ones_like(value) if share is None else torch.tensor(share, dtype=torch.float64)
    return objective.gradient(pair, {"loss": RowLoss(value, shares)}, parameters)


def flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def test_the_gradient_is_the_sum_over_pairs_of_unit_differences() -> None:
    """By a naive loop, under shares of the rows and the beta sigma(-beta h) of dpo after a few steps."""
    toy = Toy(0, suffix=3, pairs=4)
    for _ in range(3):
        toy.step(0.3, DPO())
    share = [0.1, 2.0, 0.0, 1.0]
    got = flat(rule_of(PNGD(base=DPO(beta=0.5)), toy.pair(), toy.parameters, share))
    want = torch.zeros_like(got)
    for part, (good, bad), (good_start, bad_start) in zip(share, toy.logps(), toy.start, strict=True):
        units = [flat(torch.autograd.grad(side.sum(), toy.parameters)) for side in (good, bad)]
        margin = float(((good - good_start).sum() - (bad - bad_start).sum()).detach())
        weight = part * 0.5 * float(torch.sigmoid(torch.tensor(-0.5 * margin)))
        want -= weight * (units[0] / units[0].norm() - units[1] / units[1].norm())
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("base", [DPO(), SimPO(), IPO()], ids=["dpo", "simpo", "ipo"])
@pytest.mark.parametrize("length", [SlopeLength(), LossLength()], ids=["slope-length", "loss-length"])
def test_one_pair_and_a_small_step_never_go_wrong(base: Any, length: Any) -> None:
    for seed in range(12):
        toy = Toy(seed, suffix=seed)
        toy.step(1e-6, PNGD(base=base, length=length))
        up, down = toy.changes()[0].tolist()
        assert up > 0 > down


def test_dpo_does_go_wrong() -> None:
    """The same steps by the loss's own gradient: the promise is the rule's, not the pairs'."""
    found = []
    for seed in range(12):
        toy = Toy(seed, suffix=12)
        toy.step(1e-6, DPO())
        up, down = toy.changes()[0].tolist()
        found.append(up > 0 > down)
    assert 0 < sum(found) < 12


def test_parallel_gradients_move_nothing() -> None:
    toy = Toy(0)
    toy.rows = [[toy.rows[0][0]] * 2]
    toy.start = [[toy.start[0][0], toy.start[0][0] - 1]]
    for length in (SlopeLength(), LossLength()):
        assert float(flat(rule_of(PNGD(length=length), toy.pair(), toy.parameters)).norm()) < 1e-12


def test_a_loss_length_step_is_as_long_as_the_loss_s() -> None:
    for base in (DPO(), SimPO()):
        toy = Toy(1)
        own = flat(torch.autograd.grad(base(toy.pair()).sum(), toy.parameters))
        kept, unit = (flat(rule_of(PNGD(base=base, length=length), toy.pair(), toy.parameters)) for length in (LossLength(), SlopeLength()))
        torch.testing.assert_close(kept.norm(), own.norm())
        torch.testing.assert_close(kept / kept.norm(), unit / unit.norm())
    assert not torch.allclose(unit.norm(), own.norm())


def test_a_pair_that_the_loss_pushes_back_is_pushed_back() -> None:
    """ipo beyond its target margin has negative slopes."""
    toy = Toy(2)
    toy.start = [[toy.start[0][0] - 3, toy.start[0][1]]]
    toy.step(1e-6, PNGD(base=IPO(beta=1.0)))
    up, down = (toy.changes()[0] - torch.tensor([3.0 * 13, 0.0])).tolist()
    assert up < 0 < down


def test_token_credit_is_the_weighted_score_s_gradient() -> None:
    toy = Toy(3, suffix=4)
    weight = torch.tensor([[1.0, 0.0, 0.5, 0.0, 2.0]], dtype=torch.float64)
    pair = toy.pair()
    pair = replace(pair, sides={role: replace(side, weight=weight) for role, side in pair.sides.items()})
    got = flat(rule_of(PNGD(), pair, toy.parameters))
    units = [flat(torch.autograd.grad((weight[0] * side).sum(), toy.parameters)) for side in toy.logps()[0]]
    torch.testing.assert_close(got, -0.05 * (units[0] / units[0].norm() - units[1] / units[1].norm()))
    empty = replace(pair, sides={role: replace(side, weight=0 * weight) for role, side in pair.sides.items()})
    assert not flat(rule_of(PNGD(), empty, toy.parameters)).any()


def run_all(objective: Any, suffix: int) -> tuple[int, Tensor]:
    """In how many of ten seeds the chosen answer rose and the rejected one fell, and the mean changes after 60 steps."""
    changes = []
    for seed in range(10):
        toy = Toy(seed, suffix)
        for _ in range(60):
            toy.step(0.1, objective)
        changes.append(toy.changes()[0])
    both = torch.stack(changes)
    return int(((both[:, 0] > 0) & (both[:, 1] < 0)).sum()), both.mean(0)


def test_shared_suffix() -> None:
    """12 shared tokens after the one that differs: dpo leaves some pairs going the same way, normalised gradients none; without them neither does."""
    own, _ = run_all(DPO(), 12)
    for length in (SlopeLength(), LossLength()):
        normalised, (up, down) = run_all(PNGD(length=length), 12)
        assert normalised == 10
        assert up > 0 > down
    assert 4 <= own <= 9
    assert run_all(DPO(), 0)[0] == 10


def test_settings_from_json() -> None:
    chosen = PNGD(base=SimPO(beta=3.0), length=LossLength())
    assert from_json(PNGD, to_json(chosen)) == chosen
    assert to_json(chosen)["base"]["choice"] == "sim-po"
