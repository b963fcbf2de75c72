"""Two epochs of AdamW steps end in the same weights and log the same numbers, however the rows are split into micro-batches."""

import ast
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import finegrain
from finegrain import catalog
from finegrain.models.packing import Group
from finegrain.models.scorer import Request, fused, plain
from finegrain.ops.logprobs import TokenValues
from finegrain.train.batches import Plan, split
from tests.train.awkward import CentresItsMicroBatch
from tests.train.harness import BATCH, HUGE, OBJECTIVES, How, build, largest_difference, largest_metric_difference, train, weights
from tests.trees import parse

TOLERANCE = {torch.float32: 2.5e-6, torch.float64: 5e-8}
EPOCHS = range(10)
"""The steps of two epochs: each ends with a step of one row."""


def outcome(objective: Any, how: How) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    trainer, plan = build(objective, how)
    lines = train(trainer, plan, EPOCHS)
    return weights(trainer), lines


@cache
def whole(name: str, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """All rows of a step at once."""
    return outcome(OBJECTIVES[name](), How(dtype=dtype))


def assert_same(one: tuple[Any, Any], other: tuple[Any, Any], tolerance: float) -> None:
    assert largest_difference(one[0], other[0]) <= tolerance
    assert largest_metric_difference(one[1], other[1]) <= tolerance


COARSE = ("dpo", "kto", "a module and a table")
"""Objectives whose float32 runs are part of the default tests; those of the others, and rows alone, are marked slow."""

SPLITS = [(name, torch.float64, 55) for name in OBJECTIVES] + [(name, torch.float32, 1) for name in COARSE]
REST = [(name, dtype, micro) for name in OBJECTIVES for dtype in TOLERANCE for micro in (1, 55) if (name, dtype, micro) not in SPLITS]


@pytest.mark.parametrize(("name", "dtype", "micro_tokens"), [*SPLITS, *(pytest.param(*case, marks=pytest.mark.slow) for case in REST)])
def test_micro_batches_change_nothing(name: str, dtype: torch.dtype, micro_tokens: int) -> None:
    """Budget 1 puts every row alone, 55 cuts raggedly."""
    assert_same(outcome(OBJECTIVES[name](), How(dtype=dtype, micro_tokens=micro_tokens)), whole(name, dtype), TOLERANCE[dtype])


def one_by_one(model: Any, groups: Sequence[Group], request: Request) -> TokenValues:
    """The fused path without packing: every group in a forward pass of its own."""
    parts = [fused(model, [group], request) for group in groups]
    answers = [sum(int(branch.mask.sum()) for branch in group.branches) for group in groups]
    join = lambda field: torch.cat(
        [getattr(part, field)[:count] for part, count in zip(parts, answers, strict=True)]
        + [getattr(part, field)[count:] for part, count in zip(parts, answers, strict=True)]
    )
    return TokenValues(join("logp"), join("entropy") if request.entropy else None)


MORE = ("ava-p", "span-labels", "tdpo2", "a table of words as prior", "both directions of the KL", "a reader of the reference")
"""Objectives that read more of a pass than `one_by_one` joins: a head's outputs, divergences, the reference's states."""

PATHS = [
    (plain, torch.float64, list(OBJECTIVES)),
    (one_by_one, torch.float64, ["orpo", "a module and a table"]),
    pytest.param(plain, torch.float32, list(OBJECTIVES), marks=pytest.mark.slow),
    pytest.param(one_by_one, torch.float32, [name for name in OBJECTIVES if name not in MORE], marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("path", "dtype", "objectives"), PATHS)
def test_packing_changes_nothing(path: Callable[..., TokenValues], dtype: torch.dtype, objectives: list[str]) -> None:
    for name in objectives:
        trainer, plan = build(OBJECTIVES[name](), How(dtype=dtype, branched=path is not plain, micro_tokens=200))
        trainer.scorer.path = path
        lines = train(trainer, plan, EPOCHS)
        assert_same((weights(trainer), lines), whole(name, dtype), TOLERANCE[dtype])


def test_the_comparison_can_fail() -> None:
    """A method that averages over its micro-batch, a smaller learning rate, and one step less are all seen."""
    broken = [outcome(CentresItsMicroBatch(), How(micro_tokens=micro))[0] for micro in (HUGE, 55)]
    assert largest_difference(*broken) > 100 * TOLERANCE[torch.float32]
    right = whole("dpo", torch.float32)[0]
    assert largest_difference(outcome(OBJECTIVES["dpo"](), How(rate=0.97 * How.rate))[0], right) > 10 * TOLERANCE[torch.float32]
    trainer, plan = build(OBJECTIVES["dpo"](), How())
    train(trainer, plan, EPOCHS[:-1])
    assert largest_difference(weights(trainer), right) > 2 * TOLERANCE[torch.float32]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objectives_do_train(name: str) -> None:
    """The equalities above would hold for a loop that does nothing."""
    trainer, _ = build(OBJECTIVES[name](), How(dtype=torch.float64))
    start = weights(trainer)
    end, lines = whole(name, torch.float64)
    moved = [key for key in start if not torch.equal(start[key], end[key])]
    assert len(moved) == len(start)
    assert sum(line["loss"] for line in lines[-5:]) < sum(line["loss"] for line in lines[:5])


def test_a_plan_covers_every_row_once_an_epoch_whatever_the_split() -> None:
    tokens = torch.randint(3, 40, (23,), generator=torch.Generator().manual_seed(0)).numpy()
    for world, budget in ((1, HUGE), (1, 30), (2, 30), (4, 1), (9, 50)):
        plan = Plan(tokens, BATCH, 2.0, 3, budget, world)
        assert len(plan) == 10
        for epoch in (0, 1):
            steps = [plan.step(epoch * 5 + index) for index in range(5)]
            assert sorted(row for step in steps for row in step.rows) == list(range(23))
            for step in steps:
                assert len(step.micro) == world
                assert sorted(position for share in step.micro for part in share for position in part) == list(range(len(step.rows)))
        assert plan.step(0).rows == Plan(tokens, BATCH, 2.0, 3, HUGE).step(0).rows
        assert plan.step(0).rows != plan.step(5).rows
    assert Plan(tokens, BATCH, 2.0, 4, HUGE).step(0).rows != Plan(tokens, BATCH, 2.0, 3, HUGE).step(0).rows


def test_micro_batches_keep_their_budget() -> None:
    tokens = [10, 40, 25, 5, 60, 12]
    (share,) = split(tokens, 50, 1)
    assert all(sum(tokens[position] for position in part) <= 50 or len(part) == 1 for part in share)
    assert max(len(part) for part in share) > 1


def names_in_conditions(source: str) -> set[str]:
    """String constants that a comparison, a membership test, a match case or a lookup table's key decides by."""
    found: set[str] = set()
    for node in ast.walk(parse(source)):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, (ast.MatchValue, ast.Subscript)):
            parts = [node.value if isinstance(node, ast.MatchValue) else node.slice]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        found |= {leaf.value for part in parts for leaf in ast.walk(part) if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)}
    return found


def test_the_loop_knows_no_method_by_name() -> None:
    root = Path(finegrain.__file__).parent
    methods = {method.name for method in catalog.METHODS if method.family in ("objective", "credit", "loss")}  # heads are named by plain words
    files = [file for room in ("train", "recipes") for file in sorted((root / room).glob("*.py"))]
    assert len(files) > 10
    for file in files:
        words = {"confidence", "nll"} if file.stem in ("eval_report", "eval_table") else set()  # what is measured, not methods
        assert not names_in_conditions(file.read_text()) & methods - words, file
    assert names_in_conditions("if name == 'kto':\n    pass\n") & methods
    assert names_in_conditions("if name in ('kto', 'dpo'):\n    pass\n") & methods


def test_the_loop_knows_no_method_by_class() -> None:
    """`train` imports no method at all; a recipe may start one, and tests for none."""
    root = Path(finegrain.__file__).parent
    for file in sorted((root / "train").glob("*.py")) + sorted((root / "recipes").glob("*.py")):
        tree = parse(file.read_text())
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        if file.parent.name == "train":
            assert not [module for module in modules if module.startswith(("finegrain.objectives", "finegrain.credit"))], file
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("finegrain.objectives")
            for alias in node.names
        }
        tested = {
            leaf.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass")
            for leaf in ast.walk(node)
            if isinstance(leaf, ast.Name)
        }
        assert not imported & tested, file
