"""An objective's own columns in a whole run, with and without a credit: numbers, texts as categories, what it makes of rows and of tokens.

Test of recipes/training/columns.py, data/categories.py, train/trainer.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import finegrain
from finegrain.credit.context import Credit, CreditContext
from finegrain.errors import DataError, UsageError
from finegrain.ops.sequence import log_ratio
from finegrain.rewards.columns import AnswerContext
from finegrain.train.collate import TrainingSet
from finegrain.train.loop import Trainer
from finegrain.types import Pair, TokenColumns, WeightMeaning
from tests.tiny import save_tiny, write_pairs

PEOPLE = ["Ada", "Bo <b>", "Cy"]


@dataclass(frozen=True, kw_only=True)
class Columnar:
    """Reads a number, a text, a number that it makes of the number, and segments that it makes of the tokens."""

    columns: ClassVar[tuple[str, ...]] = ("trust",)
    categories: ClassVar[tuple[str, ...]] = ("annotator",)
    token_columns: ClassVar[tuple[str, ...]] = ("segment",)

    def prepare(self, answers: AnswerContext) -> dict[str, TokenColumns]:
        return {
            role: TokenColumns.of(segment=[np.where(mask, np.maximum(mask.cumsum() - 1, 0) // 2, -1) for mask in answers.masks(role)])
            for role in answers.roles
        }

    def row_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"twice": 2 * columns["trust"]}

    def make_state(self, categories: Mapping[str, int]) -> dict[str, Tensor]:
        return {"seen": torch.zeros(categories["annotator"])}

    def after_step(self, state: Mapping[str, Tensor], pair: Pair) -> dict[str, Tensor]:
        who = pair.columns["annotator"].long()
        return {"seen": torch.zeros_like(state["seen"]).index_add(0, who, torch.ones(len(who)))}

    def __call__(self, pair: Pair) -> Tensor:
        for side in pair.sides.values():
            assert side.segment is not None
            assert int(side.segment.max()) <= side.mask.sum(1).max() // 2
        torch.testing.assert_close(pair.columns["twice"], 2 * pair.columns["trust"])
        return torch.nn.functional.softplus(-0.1 * pair.columns["twice"] * (log_ratio(pair.chosen) - log_ratio(pair.rejected)))


@dataclass(frozen=True, kw_only=True)
class HalfOfThem:
    """A credit: every other token, and segments that are no one else's."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.KEEP_MASK

    def prepare(self, context: CreditContext) -> dict[str, TokenColumns]:
        found = {}
        for role in context.signs:
            weights: list[Any] = [(mask & (np.arange(len(mask)) % 2 == 0)).astype(np.float32) for mask in context.masks(role)]
            segments: list[Any] = [np.where(mask, 0, -1).astype(np.int32) for mask in context.masks(role)]
            found[role] = TokenColumns(weights, [None] * len(weights), segments, [True] * len(weights))
        return found


@dataclass(frozen=True, kw_only=True)
class Weighing(Columnar):
    """Makes token weights of its own too."""

    token_columns: ClassVar[tuple[str, ...]] = ("weight",)

    def prepare(self, answers: AnswerContext) -> dict[str, TokenColumns]:
        return {role: TokenColumns.of(weight=[mask.astype(np.float32) for mask in answers.masks(role)]) for role in answers.roles}


@dataclass(frozen=True, kw_only=True)
class Undeclared(Columnar):
    """Fills a field that it does not declare."""

    token_columns: ClassVar[tuple[str, ...]] = ()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def data(folder: Path, *, drop: str | None = None, only: int | None = None) -> Path:
    """Pairs with a number and an annotator each; `drop` leaves a column out, of all rows or of one."""
    file = write_pairs(folder / "pairs.jsonl", 22)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for place, row in enumerate(rows):
        row |= {"trust": 0.5 + place / 20, "annotator": PEOPLE[place % 3]}
        if drop is not None and only in (None, place):
            del row[drop]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def run(model: Path, folder: Path, file: Path, objective: Any, credit: Credit | None, watch: Any = None) -> dict[str, Any]:
    common = finegrain.Common(max_steps=5, device="cpu", lr=1e-3)
    training = finegrain.Training(batch_size=4, samples=0)
    finegrain.prefer(str(model), str(file), str(folder / "run"), objective=objective, credit=credit, common=common, training=training)
    found: dict[str, Any] = json.loads((folder / "run" / "run.json").read_text())
    return found


@pytest.mark.parametrize("credit", [None, HalfOfThem()], ids=["alone", "with a credit"])
def test_own_columns_stand_beside_a_credit(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, credit: Credit | None) -> None:
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    sets: list[TrainingSet] = []
    tables: list[dict[str, Tensor]] = []
    honest = Trainer.batches

    def watched(self: Trainer, *arguments: Any) -> Any:
        sets.append(self.data)
        tables.append(self.state)
        return honest(self, *arguments)

    monkeypatch.setattr(Trainer, "batches", watched)
    record = run(model, tmp_path, data(tmp_path), Columnar(), credit)
    assert sorted(record["categories"]["annotator"]) == PEOPLE
    assert tables[-1]["seen"].sum() == 20, "five steps of four rows"
    assert len(tables[-1]["seen"]) == 3
    for role in ("chosen", "rejected"):
        own = sets[-1].token_columns[role]
        assert all(value is not None for value in own.segment)
        assert (own.weight[0] is None) == (credit is None)


def test_two_makers_of_weights_contradict_each_other(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match="Weighing makes the token weights of its answers itself"):
        run(model, tmp_path, data(tmp_path), Weighing(), HalfOfThem())
    with pytest.raises(UsageError, match="Undeclared fills the token columns segment without declaring them"):
        run(model, tmp_path / "other", data(tmp_path), Undeclared(), None)


@pytest.mark.parametrize(
    ("drop", "only", "words"),
    [
        ("trust", None, "Columnar reads the column trust, and the rows of --data have no number there; numbers found: annotator"),
        ("trust", 3, "Columnar reads the column trust, and some rows of --data have no number there"),
        ("annotator", None, "Columnar reads the column annotator, and the rows of --data have no text there; numbers found: trust"),
    ],
)
def test_a_missing_column_is_a_sentence(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drop: str, only: int | None, words: str
) -> None:
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=words):
        run(model, tmp_path, data(tmp_path, drop=drop, only=only), Columnar(), None)
