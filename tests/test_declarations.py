"""What methods declare (declarations.py, train/contract.py, rewards/declarations.py, credit/declarations.py): read there alone, misspelt nowhere."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from torch import Tensor, nn

from finegrain import catalog
from finegrain.credit.declarations import CreditDeclarations, read_credit
from finegrain.declarations import read_declarations
from finegrain.errors import UsageError
from finegrain.objectives.dpo import DPO
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.declarations import HeadDeclarations, LossDeclarations, read_head, read_loss
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from finegrain.train.contract import Contract
from finegrain.train.read_contract import contract_of
from finegrain.types import Pair, WeightMeaning
from tests.trees import parse

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "finegrain"
GUIDE = ROOT / "docs" / "guides" / "add-a-method.md"
RECORDS = {
    "objective": (Contract, "train/contract.py"),
    "head": (HeadDeclarations, "rewards/declarations.py"),
    "loss": (LossDeclarations, "rewards/declarations.py"),
    "credit": (CreditDeclarations, "credit/declarations.py"),
}
READER = "declarations.py"
"""The file that may read an attribute by name."""


def declared(kind: str) -> dict[str, str]:
    """Names a record declares, with the line that stands under each."""
    record, file = RECORDS[kind]
    body = next(node.body for node in parse((SOURCE / file).read_text()).body if isinstance(node, ast.ClassDef) and node.name == record.__name__)
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id != kind:
            line = after.value if isinstance(after, ast.Expr) else None
            assert isinstance(line, ast.Constant), f"{record.__name__}.{node.target.id} has no line"
            found[node.target.id] = str(line.value)
    return found


def test_every_declaration_has_one_line() -> None:
    for kind, (record, _) in RECORDS.items():
        lines = declared(kind)
        assert list(lines) == [field.name for field in fields(record) if field.name != kind]
        assert all("\n" not in line and line.endswith(".") for line in lines.values()), kind


def table(kind: str) -> str:
    """The record as the guide shows it."""
    rows = [f"| `{name}` | {line.replace('|', chr(92) + '|')} |" for name, line in declared(kind).items()]
    return "\n".join([f"| {kind} | meaning |", "| --- | --- |", *rows])


@pytest.mark.parametrize("kind", RECORDS)
def test_the_guide_lists_every_declaration(kind: str) -> None:
    """Where this fails, the text it expected goes into the guide in place of the old table."""
    assert table(kind) in GUIDE.read_text(), table(kind)


def test_a_setting_with_the_letters_of_a_declaration_is_an_error() -> None:
    @dataclass(frozen=True)
    class Near:
        learningRate: float = 1.0

        def __call__(self, pair: Pair) -> Tensor:
            return pair.chosen.logp.sum(1)

    with pytest.raises(UsageError, match=r"'learningRate'; did you mean learning_rate"):
        contract_of(Near())


def read_by_name(modules: Mapping[str, str]) -> list[str]:
    """Places outside the reader that ask an object for a declared name by `getattr` or `hasattr`."""
    names = {name for kind in RECORDS for name in declared(kind)}
    found = []
    for module, text in modules.items():
        for node in ast.walk(parse(text)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr") and len(node.args) > 1):
                continue
            wanted = node.args[1]
            if module != READER and isinstance(wanted, ast.Constant) and wanted.value in names:
                found.append(f"{module}:{node.lineno} reads {wanted.value!r} by name")
    return found


def test_nobody_else_reads_a_declaration_by_name() -> None:
    modules = {str(path.relative_to(SOURCE)): path.read_text() for path in SOURCE.rglob("*.py")}
    assert len(modules) > 300
    assert read_by_name(modules) == []


@pytest.mark.parametrize("text", ['getattr(loss, "needs", frozenset())', 'x = hasattr(head, "read_positions")', 'f(getattr(credit, "weight_means"))'])
def test_a_planted_reading_is_caught(text: str) -> None:
    assert len(read_by_name({"recipes/planted.py": text})) == 1
    assert read_by_name({READER: text}) == []


class Need:
    need = frozenset({"logp"})

    def __call__(self, pair: Pair) -> Tensor:
        return pair.chosen.logp.sum(1)


class LearningRate(Need):
    need = None
    learningrate = 1e-3


@dataclass(frozen=True)
class Statistic:
    beta: float = 0.1

    def statistic(self, pair: Pair) -> dict[str, Any]:
        return {}

    def __call__(self, pair: Pair) -> Tensor:
        return pair.chosen.logp.sum(1)


class Rate(BradleyTerry):
    result: ClassVar[dict[str, bool]] = {}


class Positions(Token):
    def read_position(self, side: Any) -> None: ...


class Weight:
    weight_mean = WeightMeaning.CERTAINTY

    def prepare(self, context: Any) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda: contract_of(Need()), r"^Need: unknown objective declaration 'need'; did you mean needs"),
        (lambda: contract_of(type("Slow", (Statistic,), {"learningrate": 1.0})()), "'learningrate'; did you mean learning_rate"),
        (lambda: contract_of(Statistic()), "Statistic: unknown objective declaration 'statistic'; did you mean statistics"),
        (lambda: RewardFit(Token(), Rate()), r"Rate: unknown loss declaration 'result'; did you mean results"),
        (lambda: RewardFit(Positions(), BradleyTerry()), "Positions: unknown head declaration 'read_position'; did you mean read_positions"),
        (lambda: read_credit(Weight()), "Weight: unknown credit declaration 'weight_mean'; did you mean weight_means"),
        (lambda: contract_of(Statistic()), "a setting is a field of a dataclass, and a helper's name begins with an underscore$"),
        (lambda: read_head(Statistic()), "'statistic'"),
        (lambda: read_credit(object()), "object declares no prepare, which every credit has"),
        (lambda: read_loss(lambda head, pair: pair.chosen.logp), "<lambda> declares no roles, which every loss has"),
    ],
)
def test_a_misspelt_declaration_stops_with_the_near_name(read: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read()


def test_what_a_function_carries_is_read_too() -> None:
    def loss(pair: Pair) -> Tensor:
        return pair.chosen.logp.sum(1)

    assert contract_of(loss).needs == {"logp", "reference"}
    loss.needs = frozenset()  # type: ignore[attr-defined]
    assert contract_of(loss).needs == {"logp"}
    loss.need = frozenset()  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"^loss: unknown objective declaration 'need'"):
        contract_of(loss)


class Layer(nn.Module):
    learning_rate = 1e-4

    def forward(self, pair: Pair) -> Tensor:
        return pair.chosen.logp.sum(1)


class Slotted:
    __slots__ = ("scale",)
    roles = ("answer",)

    def __init__(self) -> None:
        self.scale = 2.0

    def __call__(self, pair: Pair) -> Tensor:
        return self._scaled(pair.answer.logp.sum(1))

    def _scaled(self, values: Tensor) -> Tensor:
        return self.scale * values


class Named(NamedTuple):
    scale: float = 2.0

    def __call__(self, pair: Pair) -> Tensor:
        return self.scale * pair.chosen.logp.sum(1)


class Plain:
    def __init__(self) -> None:
        self.scale = 2.0

    def __call__(self, pair: Pair) -> Tensor:
        return self.scale * pair.chosen.logp.sum(1)


METHODS = (lambda pair: pair.chosen.logp.sum(1), Layer(), Slotted(), Named(), Plain(), DPO())


@pytest.mark.parametrize("method", METHODS, ids=lambda one: type(one).__name__)
def test_settings_helpers_and_foreign_bases_are_no_declarations(method: Any) -> None:
    contract = contract_of(method)
    assert contract.objective is method
    assert contract.learning_rate == getattr(method, "learning_rate", 1e-6)


def test_every_method_of_the_catalog_declares_what_it_shows() -> None:
    read = {"objective": contract_of, "head": read_head, "loss": read_loss, "credit": read_credit}
    asked = [(family, name) for family in read for name in catalog.names(family)]
    for family, name in asked:
        read[family](catalog.load(family, name)())
    assert len(asked) > 45


def test_what_is_left_out_has_its_default() -> None:
    head, loss = read_head(Sequence()), read_loss(BradleyTerry())
    assert (head.read_positions, head.module, head.token_columns, head.loss_kind, head.outputs) == (None, None, (), object, 1)
    assert (loss.needs, loss.head_kind, loss.results, loss.calibrate, loss.measures) == (frozenset(), object, {}, False, None)
    assert read_credit(type("Own", (), {"prepare": lambda self, context: {}})()).weight_means is WeightMeaning.MULTIPLIER
    plain = contract_of(lambda pair: pair.chosen.logp.sum(1))
    assert (plain.beta, plain.prepare, plain.make_head, plain.frozen, plain.reward_head, plain.name) == (1.0, None, None, False, None, "function")


def test_an_objective_of_head_and_loss_is_named_by_its_loss() -> None:
    contract = contract_of(RewardFit(Token(), BradleyTerry()))
    assert (contract.name, contract.loss, contract.frozen_backbone) == ("BradleyTerry", BradleyTerry(), False)
    assert contract_of(DPO()).name == "DPO"


def test_a_property_is_read_once() -> None:
    class Counting:
        read = 0

    class Once:
        @property
        def start(self) -> None:
            Counting.read += 1

    read_declarations(Once(), Contract, "objective")
    assert Counting.read == 1
