"""An objective around another: its declarations count beside its own, and the swapped pair is the pair with its columns exchanged."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.objectives.aot import AOT
from finegrain.objectives.ava_p import AvaP
from finegrain.objectives.bfpo import BFPO, AssumeSafe
from finegrain.objectives.cpo import CPO
from finegrain.objectives.dpo import DPO
from finegrain.objectives.kto import KTO
from finegrain.objectives.simpo import SimPO
from finegrain.objectives.sparsepo import SparsePO
from finegrain.objectives.tdpo1 import TDPO1
from finegrain.ops.sequence import log_ratio
from finegrain.train.read_contract import contract_of
from finegrain.types import Pair, Side, Summed, Term, Terms, row_losses
from tests.laws.pairs import make_pair
from tests.train.awkward import Gated, Gates, Reliable, UnitGradients
from tests.train.harness import How, build, train

WIDE = How(dtype=torch.float64, micro_tokens=55)


@dataclass(frozen=True, kw_only=True)
class Around:
    """The inner objective's loss, and nothing of its own."""

    base: Any

    @property
    def wraps(self) -> Any:
        return self.base

    def __call__(self, pair: Pair) -> Any:
        return self.base(pair)


@pytest.mark.parametrize("base", [DPO(), CPO(), AOT(), KTO(), Gated(), Gates(), SimPO(), SparsePO()], ids=lambda base: type(base).__name__)
def test_around_is_what_is_inside(base: Any) -> None:
    """Roles, needs, statistics, modules and tables of the inner objective: the run is its run."""
    lines = [train(*build(objective, WIDE), range(6)) for objective in (base, Around(base=base))]
    assert lines[0] == lines[1]


@dataclass(frozen=True, kw_only=True)
class Measuring(Around):
    """Logs a number of its own."""

    name: str = "length"

    def measures(self, pair: Pair) -> Terms:
        return {self.name: Term(pair.chosen.mask.sum(-1).double(), torch.ones(len(pair.chosen.mask)))}


def test_measures_of_both_are_logged() -> None:
    lines = [train(*build(objective, WIDE), range(1))[0] for objective in (Measuring(base=TDPO1()), TDPO1(), Measuring(base=DPO()))]
    assert lines[0].keys() == {*lines[1], "length"}
    assert lines[0]["length"] == lines[2]["length"] > 0
    assert "kl/chosen" in lines[0]
    with pytest.raises(UsageError, match="both have a measure kl/chosen"):
        train(*build(Measuring(base=TDPO1(), name="kl/chosen"), WIDE), range(1))


def test_declarations_of_both() -> None:
    assert contract_of(Around(base=SparsePO())).module_decay == contract_of(SparsePO()).module_decay > 0
    contract = contract_of(Reliable(base=AOT()))
    assert contract.needs == contract_of(AOT()).needs
    assert contract.categories == ("annotator",)
    assert contract.statistics is not None
    assert contract.learning_rate == contract_of(AOT()).learning_rate
    assert contract_of(Around(base=BFPO(unflagged=AssumeSafe()))).assumed == {"is_chosen_safe": 1.0, "is_rejected_safe": 1.0}
    nested = contract_of(Reliable(base=Around(base=Gated())))
    assert nested.needs == {"reference", "entropy", "logp"}
    assert set(nested.modules) == {"gate"}
    assert set(nested.state) == {"margin", "seen"}


def test_tables_of_both_move_as_they_do_alone() -> None:
    """The inner ones are added to, the outer one is replaced, in one step."""
    both, plan = build(Reliable(base=Gated()), WIDE)
    inner, _ = build(Gated(), WIDE)
    for trainer in (both, inner):
        train(trainer, plan, [0])
    assert both.state["seen"].sum() == 5
    for name in ("margin", "seen"):
        torch.testing.assert_close(both.state[name], inner.state[name], rtol=0, atol=1e-12)
    assert (both.state["reliability"] < 0.9).any()
    assert len(both.state["reliability"]) == 3


def test_the_table_is_the_mean_of_the_step_by_annotator() -> None:
    trainer, plan = build(Reliable(), WIDE)
    step = replace(plan.step(0), micro=((tuple(range(len(plan.step(0).rows))),),))
    (batch,) = trainer.batches(step, trainer.contract.roles)
    pair = trainer.pair(batch, {}, scored=True)
    odds = row_losses(CPO()(pair.swapped())) - row_losses(CPO()(pair))
    right = torch.sigmoid(odds + torch.logit(torch.tensor(0.9))).detach().double()
    who = pair.columns["annotator"].long()
    wanted = torch.full((3,), 0.9, dtype=torch.float64)
    for person in who.unique().tolist():
        wanted[person] = 0.9 * 0.9 + 0.1 * right[who == person].mean()
    train(trainer, plan, [0])
    torch.testing.assert_close(trainer.state["reliability"], wanted, rtol=0, atol=1e-7)


def odds_of(base: Any, pair: Pair) -> Tensor:
    return row_losses(base(pair.swapped())) - row_losses(base(pair))


def test_swapping_dpo_changes_the_sign_of_its_margin() -> None:
    """The Gibbs link of dpo is sigma(beta h)."""
    pair = make_pair(DPO(), 0)
    margin = log_ratio(pair.chosen) - log_ratio(pair.rejected)
    torch.testing.assert_close(odds_of(DPO(beta=0.3), pair), 0.3 * margin, rtol=0, atol=1e-12)


def test_swapping_terms_swaps_every_term() -> None:
    """cpo's likelihood is that of the other answer; a row's loss divides by the row's own count."""
    pair = make_pair(CPO(), 0)
    terms = CPO()(pair.swapped())
    assert isinstance(terms, dict)
    direct: Any = CPO()(replace(pair, sides={"chosen": pair.rejected, "rejected": pair.chosen}))
    for name, term in terms.items():
        assert torch.equal(term.value, direct[name].value)
    nll, preference = terms["nll"], next(term for name, term in terms.items() if name != "nll")
    counted = torch.where(nll.count > 0, nll.value / nll.count.clamp(min=1e-9), 0.0)
    torch.testing.assert_close(row_losses(terms), preference.value * preference.coefficient + nll.coefficient * counted, rtol=0, atol=1e-12)
    assert (nll.count == 0).any(), "a row without a token has no loss, and no NaN"


@dataclass(frozen=True, kw_only=True)
class Sided:
    """A margin between the sides' own columns, and one between the orders' statistics."""

    columns: ClassVar[tuple[str, ...]] = ("chosen_score", "rejected_score", "is_chosen_safe", "strength")

    def statistics(self, pair: Pair) -> Mapping[str, Summed]:
        return {"best": Summed(pair.columns["chosen_score"].sum())}

    def __call__(self, pair: Pair) -> Tensor:
        assert torch.equal(pair.columns["strength"], torch.ones(2))
        return pair.columns["chosen_score"] - 2 * pair.columns["rejected_score"] + pair.statistics["best"]


def sided() -> Pair:
    side = Side(logp=-torch.ones(2, 1), mask=torch.ones(2, 1, dtype=torch.bool), ref_logp=torch.zeros(2, 1))
    columns = {"chosen_score": torch.tensor([3.0, 5.0]), "rejected_score": torch.tensor([1.0, 2.0]), "strength": torch.ones(2)}
    columns |= {"is_chosen_safe": torch.tensor([1.0, 0.0]), "annotated/rejected": torch.tensor([0.0, 1.0]), "chosenness": torch.zeros(2)}
    return Pair(sides={"chosen": side, "rejected": replace(side, logp=-2 * side.logp)}, columns=columns)


def test_columns_and_statistics_of_a_side_go_with_it() -> None:
    contract = contract_of(Around(base=Sided()))
    pair = sided()
    assert contract.statistics is not None
    found = {name: statistic.value for name, statistic in contract.statistics(pair).items()}
    assert found == {"best": 8.0, "swapped/best": 3.0}
    pair = replace(pair, statistics=found)
    swapped = pair.swapped()
    assert swapped.columns.keys() == {"rejected_score", "chosen_score", "strength", "is_rejected_safe", "annotated/chosen", "chosenness"}
    torch.testing.assert_close(Sided()(swapped), torch.tensor([1.0 - 6 + 3, 2.0 - 10 + 3]))
    again = swapped.swapped()
    assert all(torch.equal(value, again.columns[name]) for name, value in pair.columns.items())
    assert again.statistics == pair.statistics


def test_a_swap_of_the_sides_alone_is_seen() -> None:
    """Broken: what `swapped` was before."""
    pair = replace(sided(), statistics={"best": torch.tensor(8.0), "swapped/best": torch.tensor(3.0)})
    sides_alone = replace(pair, sides={"chosen": pair.rejected, "rejected": pair.chosen})
    assert not torch.equal(Sided()(sides_alone), Sided()(pair.swapped()))


def test_statistics_of_log_probabilities_are_made_for_both_orders() -> None:
    """aot's sorted margins: the swapped loss reads those of the swapped step."""
    contract = contract_of(Around(base=AOT()))
    pair = make_pair(AOT(), 0)
    assert contract.statistics is not None
    whole = replace(pair, statistics={name: statistic.value for name, statistic in contract.statistics(pair).items()})
    other = pair.swapped()
    alone = replace(other, statistics={name: statistic.value for name, statistic in AOT().statistics(other).items()})
    torch.testing.assert_close(AOT()(whole.swapped()), AOT()(alone), rtol=0, atol=1e-12)


class SameTable(Around):
    def state(self) -> dict[str, Tensor]:
        return {"seen": torch.zeros(1)}


class SameHead(Around):
    outputs = 3


class SameStatistic(Around):
    def column_statistics(self, pair: Pair) -> dict[str, Summed]:
        return {"tokens": Summed(pair.chosen.mask.sum())}


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (Around(base=UnitGradients()), "Around is around UnitGradients, whose gradient rule"),
        (SameTable(base=Gated()), "both have a table seen"),
        (SameHead(base=AvaP()), "SameHead and AvaP, which it is around, both declare outputs"),
    ],
)
def test_what_only_one_of_the_two_can_have(objective: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        contract_of(objective)


def test_one_name_is_one_statistic() -> None:
    trainer, plan = build(SameStatistic(base=Gates()), WIDE)
    with pytest.raises(UsageError, match="both have a column statistic tokens"):
        train(trainer, plan, [0])


def test_row_losses_of_a_plain_loss_are_the_loss() -> None:
    values = torch.tensor([1.0, 2.0])
    assert row_losses(values) is values
