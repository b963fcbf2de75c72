"""What must hold for every credit method. A law takes the method and a maker of contexts, and raises AssertionError."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch

from finegrain.types import Scored, TokenColumns
from tests.credit.fake import FakeContext, Rows
from tests.laws import objectives

Maker = Callable[[int], FakeContext]
Columns = Mapping[str, TokenColumns]
Law = Callable[[Any, Maker], None]
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(token values, mask) -> token values."""

PARTS = ("weight", "reward", "segment")


def on_signals(context: FakeContext, change: Change, *, start: bool = True) -> FakeContext:
    """The context with the values of every signal changed; `start`: what the start model says of the tokens, too."""

    def rows(given: Mapping[str, Rows] | None) -> dict[str, Rows] | None:
        if given is None:
            return None
        paired = {role: zip(values, context.masks(role), strict=True) for role, values in given.items()}
        return {role: [None if values is None else change(values, mask) for values, mask in both] for role, both in paired.items()}

    def scored(score: Scored, mask: np.ndarray) -> Scored:
        def part(values: torch.Tensor | None) -> torch.Tensor | None:
            return None if values is None else torch.from_numpy(np.apply_along_axis(change, -1, values.numpy(), mask))

        return Scored(torch.from_numpy(change(score.mean.numpy(), mask)), part(score.std), part(score.members))

    def of_scorer(given: Mapping[str, Sequence[Scored]] | None) -> dict[str, list[Scored]] | None:
        return given and {
            role: [scored(score, mask) for score, mask in zip(scores, context.masks(role), strict=True)] for role, scores in given.items()
        }

    rewards = context.rewards and {
        role: [score._replace(tokens=scored(score.tokens, mask)) for score, mask in zip(scores, context.masks(role), strict=True)]
        for role, scores in context.rewards.items()
    }
    entropy, surprisal = (rows(context.entropy), rows(context.surprisal)) if start else (context.entropy, context.surprisal)
    return replace(
        context,
        spans=rows(context.spans),
        column=rows(context.column),
        implicit=of_scorer(context.implicit),
        table=of_scorer(context.table),
        rewards=rewards,
        entropy=entropy,
        surprisal=surprisal,
    )


def take(context: FakeContext, order: Sequence[int]) -> FakeContext:
    """The rows of a context in another order."""

    def rows(given: Mapping[str, Sequence[Any]] | None) -> dict[str, list[Any]] | None:
        return given if given is None else {role: [values[row] for row in order] for role, values in given.items()}

    return replace(
        context,
        signs={role: signs[list(order)] for role, signs in context.signs.items()},
        role_masks=rows(context.role_masks),
        spans=rows(context.spans),
        column=rows(context.column),
        implicit=rows(context.implicit),
        table=rows(context.table),
        functions=rows(context.functions),
        rewards=rows(context.rewards),
        entropy=rows(context.entropy),
        surprisal=rows(context.surprisal),
        tokens=rows(context.tokens),
        prompt=rows(context.prompt),
        parse=rows(context.parse),
    )


def cells(columns: Columns) -> list[tuple[str, int, str, np.ndarray | None]]:
    """Every array of the columns with its place."""
    return [(role, row, part, value) for role, column in columns.items() for part in PARTS for row, value in enumerate(getattr(column, part))]


def same(got: Columns, want: Columns, atol: float = 0.0, parts: Sequence[str] = PARTS) -> None:
    """Equal columns: None where None, values to the bit or to a tolerance."""
    assert got.keys() == want.keys()
    for role in want:
        assert list(got[role].annotated) == list(want[role].annotated)
    for (role, row, part, a), (*_, b) in zip(cells(got), cells(want), strict=True):
        if part in parts:
            assert (a is None) == (b is None), f"{role} {row} {part}: {a} against {b}"
            if a is not None and b is not None:
                assert a.shape == b.shape, f"{role} {row} {part}: shape {a.shape} against {b.shape}"
                assert np.allclose(a, b, rtol=0, atol=atol), f"{role} {row} {part}: {a} against {b}"


def shape_and_finiteness(method: Any, make: Maker) -> None:
    """One entry per answer; arrays as long as the answer, finite, weights not negative, ids 0, 1 ... in order and -1 off the mask."""
    context = make(0)
    columns = method.prepare(context)
    assert set(columns) == set(context.signs), "a role is missing"
    for role, column in columns.items():
        assert len(column.annotated) == len(context.signs[role])
        assert len({len(getattr(column, part)) for part in PARTS} | {len(column.annotated)}) == 1, "columns of unequal length"
    for role, row, part, value in cells(columns):
        assert value is None or columns[role].annotated[row], f"{role} {row}: {part} without a signal"
        if value is None:
            continue
        mask = context.masks(role)[row]
        assert isinstance(value, np.ndarray), f"{role} {row}: {part} is a {type(value).__name__}"
        assert value.shape == mask.shape, f"{role} {row}: {part} has shape {value.shape}, the answer {mask.shape}"
        assert value.dtype == (np.int32 if part == "segment" else np.float32), f"{part} is {value.dtype}"
        assert np.isfinite(value).all(), f"{role} {row}: {part} is not finite"
        if part == "segment":
            assert (value[~mask] == -1).all(), "a segment off the mask"
            assert np.array_equal(np.unique(value[mask]), np.arange(value.max() + 1)), f"an empty segment: {value}"
            assert (np.diff(value[mask]) >= 0).all(), f"segments out of order: {value}"
            hole = np.flatnonzero(mask[1:] & ~mask[:-1]) + 1
            assert all(value[t] not in value[:t] for t in hole), f"a segment across a hole: {value}"
        else:
            assert (value[~mask] == 0).all(), f"{part} off the mask"
        assert part != "weight" or (value >= 0).all(), "a negative weight"


def garbage_under_the_mask(method: Any, make: Maker) -> None:
    """NaN, infinities and huge numbers off the mask change nothing, to the bit."""
    want = method.prepare(make(0))
    for junk in (np.nan, np.inf, -np.inf, 1e300):
        spoiled = on_signals(make(0), lambda values, mask, junk=junk: np.where(mask, values, junk))
        same(method.prepare(replace(spoiled, junk=junk)), want)


def padding(method: Any, make: Maker) -> None:
    """Tokens outside the mask, before or after the answer, change nothing on the answer."""
    context, want = make(0), method.prepare(make(0))
    for left, right in ((0, 3), (2, 0), (4, 1)):
        wide = on_signals(context, lambda values, mask, left=left, right=right: np.pad(values, (left, right), constant_values=7.0))
        wide = replace(
            wide,
            role_masks={role: [np.pad(mask, (left, right)) for mask in masks] for role, masks in context.role_masks.items()},
            tokens={role: [np.pad(own, (left, right), constant_values=ord(" ")) for own in rows] for role, rows in context.tokens.items()},
            functions={
                role: [spans and [span._replace(start=span.start + left, end=span.end + left) for span in spans] for spans in rows]
                for role, rows in context.functions.items()
            },
        )
        got = {}
        for role, column in method.prepare(wide).items():
            cut = ([None if v is None else v[left : len(v) - right] for v in getattr(column, part)] for part in PARTS)
            got[role] = TokenColumns(*cut, column.annotated)
        same(got, want)


def rows_independent(method: Any, make: Maker) -> None:
    """An answer's credit depends on no other row."""
    context, other = make(0), make(1)
    want = method.prepare(context)
    order = list(range(len(context.signs["chosen"])))
    kept, halves = order[::2], take(context, order[::2])
    by_role = [f.name for f in fields(FakeContext) if f.name not in ("asked", "junk")]
    mixed = replace(context, **{name: join(getattr(halves, name), getattr(other, name)) for name in by_role})
    got = method.prepare(mixed)
    chosen = {role: TokenColumns(*(list(getattr(c, p))[: len(kept)] for p in (*PARTS, "annotated"))) for role, c in got.items()}
    same(chosen, {role: TokenColumns(*([getattr(c, p)[row] for row in kept] for p in (*PARTS, "annotated"))) for role, c in want.items()})


def join(first: Any, second: Any) -> Any:
    """Rows of two contexts, one after the other, by role."""
    return first and {role: np.concatenate([v, second[role]]) if isinstance(v, np.ndarray) else [*v, *second[role]] for role, v in first.items()}


def permutation(method: Any, make: Maker) -> None:
    """Rows in another order give the same columns in that order (to the rounding of sums over the data)."""
    context = make(0)
    order = np.random.default_rng(0).permutation(len(context.signs["chosen"])).tolist()
    want = method.prepare(context)
    moved = {role: TokenColumns(*([getattr(c, p)[row] for row in order] for p in (*PARTS, "annotated"))) for role, c in want.items()}
    same(method.prepare(take(context, order)), moved, atol=1e-6)


def unit_free(method: Any, make: Maker) -> None:
    """Weights and segments do not depend on the unit of the signal."""
    want = method.prepare(make(0))
    for scale in (4.0, 2.0**-10):
        same(
            method.prepare(on_signals(make(0), lambda values, mask, scale=scale: values * scale, start=False)),
            want,
            parts=("weight", "segment"),
            atol=1e-7,
        )


def negation_swaps(method: Any, make: Maker) -> None:
    """A method that masks by sign keeps, for the negated signal, just what it dropped; the cuts are the same."""
    want = method.prepare(make(0))
    if any(column.weight[row] is None for column in want.values() for row, has in enumerate(column.annotated) if has):
        return
    got = method.prepare(on_signals(make(0), lambda values, mask: -values, start=False))
    same(got, want, parts=("segment",))
    for (role, row, part, a), (*_, b) in zip(cells(got), cells(want), strict=True):
        if part == "weight" and a is not None and b is not None:
            mask = make(0).masks(role)[row]
            assert np.allclose((a + b)[mask], 1, rtol=0, atol=1e-6), f"{role} {row}: kept {b} and, negated, {a}"


def detached_and_pure(method: Any, make: Maker) -> None:
    """No gradient reaches the scorer, and what the context handed out is left as it was."""
    context = make(0)
    before = copy.deepcopy((context.role_masks, context.spans, context.column, context.signs))

    def live(score: Scored) -> Scored:
        return Scored(*(part if part is None else part.clone().requires_grad_() for part in score))

    assert context.implicit is not None
    implicit = {role: [live(score) for score in rows] for role, rows in context.implicit.items()}
    columns = method.prepare(replace(context, implicit=implicit))
    for role, row, part, value in cells(columns):
        assert value is None or isinstance(value, np.ndarray), f"{role} {row}: {part} is a {type(value).__name__} and could carry a graph"
    for old, new in zip(before, (context.role_masks, context.spans, context.column, context.signs), strict=True):
        for role in context.signs:
            for a, b in zip(old[role], new[role], strict=True):
                assert (a is None and b is None) or np.array_equal(a, b), "the context was written to"
    for role, rows in implicit.items():
        for score, own in zip(rows, context.implicit[role], strict=True):
            assert torch.equal(score.mean.detach(), own.mean), "the scorer's values were written to"
            assert score.mean.grad is None


def settings_survive_json(method: Any, make: Maker) -> None:
    """Settings are a frozen dataclass that JSON gives back."""
    objectives.settings_survive_json(method, make)  # type: ignore[arg-type]


def settings_are_read(method: Any, make: Maker) -> None:
    """Every option, of nested choices too, is asked for while the columns are made."""
    read: set[tuple[str, str]] = set()

    def spied(settings: Any) -> Any:
        kind = type(settings)

        def look(self: Any, name: str) -> Any:
            read.add((kind.__name__, name))
            return kind.__getattribute__(self, name)

        spy = object.__new__(type(kind.__name__, (kind,), {"__getattribute__": look}))
        for field in fields(settings):
            value = getattr(settings, field.name)
            spy.__dict__[field.name] = spied(value) if is_dataclass(value) else value
        return spy

    def options(settings: Any) -> set[tuple[str, str]]:
        own = {(type(settings).__name__, field.name) for field in fields(settings)}
        return own.union(*(options(value) for field in fields(settings) if is_dataclass(value := getattr(settings, field.name))))

    spied(method).prepare(make(0))
    missing = options(method) - read
    assert not missing, f"nobody reads {sorted(missing)}"


LAWS: tuple[Law, ...] = (
    shape_and_finiteness,
    garbage_under_the_mask,
    padding,
    rows_independent,
    permutation,
    unit_free,
    negation_swaps,
    detached_and_pure,
    settings_survive_json,
    settings_are_read,
)
