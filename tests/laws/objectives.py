"""What must hold for every objective. A law takes the method and a maker of pairs, and raises AssertionError."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from finegrain.configure import from_json, to_json
from finegrain.errors import UsageError
from finegrain.types import Pair, Side
from tests.laws.drive import gradients, leaves, needs_of, only, parts, roles_of, rows, step_loss, take, with_leaves, with_statistics

Maker = Callable[[int], Pair]
Law = Callable[[Any, Maker], None]

TOKEN_FIELDS = ("logp", "ref_logp", "weight", "reward", "entropy", "kl", "reference_kl")
ROUND_OFF = {"rtol": 1e-12, "atol": 1e-12}


def on_sides(pair: Pair, change: Callable[[Side], Side]) -> Pair:
    """The pair with every side changed."""
    return replace(pair, sides={role: change(side) for role, side in pair.sides.items()})


def same(got: dict[str, Tensor], want: dict[str, Tensor], **tolerance: float) -> None:
    """Equal to round-off, or exactly without a tolerance."""
    assert got.keys() == want.keys(), f"expected {want.keys()}, got {got.keys()}"
    for name in want:
        torch.testing.assert_close(got[name], want[name], msg=lambda text, name=name: f"{name}: {text}", **(tolerance or {"rtol": 0, "atol": 0}))


def shape_and_finiteness(method: Any, make_pair: Maker) -> None:
    """One finite value per row and term, empty rows included, at ordinary and at large log-ratios; finite gradients."""
    for scale in (1.0, 40.0):
        pair = on_sides(make_pair(0), lambda side, scale=scale: replace(side, logp=side.logp * scale))
        pair = with_statistics(method, pair)
        size = len(next(iter(pair.columns.values())))
        values, counts = parts(method(pair))
        for name, value in {**values, **{f"count of {name}": count for name, count in counts.items()}}.items():
            assert value.shape == (size,), f"{name} has shape {tuple(value.shape)}, expected ({size},)"
            assert bool(value.isfinite().all()), f"{name} is not finite: {value}"
        for name, grad in gradients(method, pair).items():
            assert bool(grad.isfinite().all()), f"gradient of {name} is not finite"


def garbage_under_the_mask(method: Any, make_pair: Maker) -> None:
    """NaN, infinities and huge numbers outside the masks change neither values nor gradients, to the bit."""

    def spoil(side: Side, junk: float) -> Side:
        new = {name: torch.where(side.mask, value, junk) for name in TOKEN_FIELDS if (value := getattr(side, name)) is not None}
        if side.outputs is not None:
            new["outputs"] = torch.where(side.mask[..., None], side.outputs, junk)
        if side.labels is not None:
            new["labels"] = torch.where(side.mask[..., None], side.labels, junk)
        if side.reading is not None:
            new["reading"] = torch.where(side.mask[..., None], side.reading, junk)
        if side.features is not None:
            new["features"] = torch.where(side.mask[..., None], side.features, junk)
        if side.prompt_logp is not None and side.prompt_mask is not None:
            new["prompt_logp"] = torch.where(side.prompt_mask, side.prompt_logp, junk)
        return replace(side, **new)

    pair = make_pair(0)
    clean = with_statistics(method, pair)
    values, grads = rows(method, clean), gradients(method, clean)
    for junk in (float("nan"), float("inf"), -float("inf"), 1e300):
        spoiled = with_statistics(method, on_sides(pair, lambda side, junk=junk: spoil(side, junk)))
        same(rows(method, spoiled), values)
        same(gradients(method, spoiled), grads)
    for name, grad in grads.items():
        role, _, field = name.partition(".")
        side = clean.sides[role]
        mask = side.prompt_mask if field == "prompt_logp" else side.mask
        assert mask is not None
        assert not grad[~mask].any(), f"gradient of {name} outside the mask"


def padding(method: Any, make_pair: Maker) -> None:
    """More padding on either side of the answers changes nothing."""

    def pad(side: Side, left: int, right: int) -> Side:
        def wider(name: str) -> Tensor:
            value = getattr(side, name)
            fill = False if value.dtype == torch.bool else -1 if name == "segment" else float("nan")
            block = value.new_full((len(value), left + right, *value.shape[2:]), fill)
            return torch.cat([block[:, :left], value, block[:, left:]], 1)

        return replace(side, **{f.name: wider(f.name) for f in fields(side) if getattr(side, f.name) is not None})

    pair = make_pair(0)
    values = rows(method, with_statistics(method, pair))
    for left, right in ((0, 3), (2, 0)):
        same(rows(method, with_statistics(method, on_sides(pair, lambda side, left=left, right=right: pad(side, left, right)))), values, **ROUND_OFF)


def rows_independent(method: Any, make_pair: Maker) -> None:
    """With statistics held fixed a row depends on itself alone: in company, in other company, and on its own."""
    pair, other = with_statistics(method, make_pair(0)), with_statistics(method, make_pair(1))
    values = rows(method, pair)
    size = len(next(iter(pair.columns.values())))
    for row in range(size):
        index = torch.tensor([row])
        mine = {name: value[index] for name, value in values.items()}
        same(rows(method, take(pair, index)), mine, **ROUND_OFF)
        company = take(other, torch.arange(size) != row)
        mixed = replace(join(take(pair, index), company), statistics=pair.statistics)
        same({name: value[:1] for name, value in rows(method, mixed).items()}, mine, **ROUND_OFF)


def join(first: Pair, second: Pair) -> Pair:
    """Rows of one pair followed by rows of another."""

    def cat(a: Side, b: Side) -> Side:
        return replace(a, **{f.name: torch.cat([value, getattr(b, f.name)]) for f in fields(a) if (value := getattr(a, f.name)) is not None})

    columns = {name: torch.cat([value, second.columns[name]]) for name, value in first.columns.items()}
    return replace(first, sides={role: cat(side, second.sides[role]) for role, side in first.sides.items()}, columns=columns)


def permutation(method: Any, make_pair: Maker) -> None:
    """Permuted rows give permuted values and gradients."""
    pair = make_pair(0)
    order = torch.tensor([4, 0, 3, 5, 1, 2])
    whole, permuted = with_statistics(method, pair), with_statistics(method, take(pair, order))
    same(rows(method, permuted), {name: value[order] for name, value in rows(method, whole).items()}, **ROUND_OFF)
    same(gradients(method, permuted), {name: value[order] for name, value in gradients(method, whole).items()}, **ROUND_OFF)


def micro_batches(method: Any, make_pair: Maker) -> None:
    """The loss and the gradient of a step do not depend on how its rows are cut into micro-batches, nor on their order."""
    pair = make_pair(0)
    live = {name: value.detach().clone().requires_grad_() for name, value in leaves(pair).items()}
    pair = with_leaves(pair, live)
    size = len(next(iter(pair.columns.values())))

    def step(cuts: list[list[int]]) -> dict[str, Tensor]:
        loss = step_loss(method, [take(pair, torch.tensor(cut)) for cut in cuts])
        found = torch.autograd.grad(loss, list(live.values()), allow_unused=True)
        return {"loss": loss.detach(), **{n: torch.zeros_like(live[n]) if g is None else g for n, g in zip(live, found, strict=True)}}

    whole = step([list(range(size))])
    for cuts in ([[0], [1, 2, 3, 4, 5]], [[5, 3], [0, 4], [2, 1]]):
        same(step(cuts), whole, **ROUND_OFF)


STOPPED = {"TDPO2": frozenset({"chosen.reference_kl"})}
"""By class, what a loss reads as a constant by its definition: its gradient is zero, whatever differences say."""


EXPECTATION = frozenset({"LCPO", "ALoL", "RLoL", "GOLD"})
"""Losses whose weights (beliefs, ratios) depend on the policy and are constants by definition; tests of their own check the gradient."""


def gradient_is_right(method: Any, make_pair: Maker, *, every_entry: bool = False) -> None:
    """Analytic gradients agree with finite differences in float64, statistics held fixed: along random directions of every input and output, or
    entry by entry."""
    if type(method).__name__ in EXPECTATION:
        return
    pair = with_statistics(method, make_pair(0))
    stopped, slopes = STOPPED.get(type(method).__name__, frozenset()), gradients(method, pair)
    assert not any(slopes[name].any() for name in stopped), f"{stopped} should have no gradient"
    start = {name: value.detach().clone().requires_grad_() for name, value in leaves(pair).items() if name not in stopped}

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(rows(method, with_leaves(pair, dict(zip(start, values, strict=True)))).values())

    try:
        torch.autograd.gradcheck(function, tuple(start.values()), eps=1e-6, atol=1e-5, rtol=1e-5, fast_mode=not every_entry)
    except GradcheckError as error:
        raise AssertionError(str(error)) from error


def wide_arithmetic(method: Any, make_pair: Maker) -> None:
    """bfloat16 input gives float32 output, the same to the bit as the input widened first."""

    def cast(pair: Pair, *kinds: torch.dtype) -> Pair:
        def one(value: Tensor) -> Tensor:
            for kind in kinds:
                value = value.to(kind) if value.is_floating_point() else value
            return value

        changed = on_sides(pair, lambda side: replace(side, **{f.name: one(v) for f in fields(side) if (v := getattr(side, f.name)) is not None}))
        return replace(changed, columns={name: value.float() for name, value in pair.columns.items()})

    narrow = rows(method, with_statistics(method, cast(make_pair(0), torch.bfloat16)))
    widened = rows(method, with_statistics(method, cast(make_pair(0), torch.bfloat16, torch.float32)))
    for name, value in narrow.items():
        assert value.dtype == torch.float32, f"{name} is {value.dtype}, expected float32"
    same(narrow, widened)


def settings_survive_json(method: Any, make_pair: Maker) -> None:
    """Settings are a frozen dataclass that comes back from its JSON, nested choices included."""
    assert dataclasses.is_dataclass(method), f"{type(method).__name__} is not a dataclass"
    assert type(method).__dataclass_params__.frozen, f"{type(method).__name__} is not frozen"
    again = from_json(type(method), json.loads(json.dumps(to_json(method))))
    assert again == method, f"{method} came back as {again}"


def counts_from_masks(method: Any, make_pair: Maker) -> None:
    """Denominators depend on masks, weights and columns only, but for late ones, and carry no gradient."""
    pair = with_statistics(method, make_pair(0))
    live = {name: value.detach().clone().requires_grad_() for name, value in leaves(pair).items()}
    counts = parts(method(with_leaves(pair, live)))[1]
    moved = parts(method(with_leaves(pair, {name: value - 1.7 for name, value in leaves(pair).items()})))[1]
    result = method(pair)
    early = {name for name in counts if isinstance(result, Tensor) or not result[name].late}
    same({name: moved[name] for name in early}, {name: counts[name].detach() for name in early})
    for name, count in counts.items():
        assert not count.requires_grad, f"the denominator of {name} carries a gradient"


def takes_no_credit(method: Any) -> bool:
    """Whether a credit is refused: token weights are marks of the method's own."""
    return not getattr(method, "weights", True)


def weights_of_one(method: Any, make_pair: Maker) -> None:
    """Token credit of 1 everywhere is no token credit, in values, gradients and denominators."""
    if takes_no_credit(method):
        return
    pair = make_pair(0)
    ones = with_statistics(method, on_sides(pair, lambda side: replace(side, weight=torch.ones_like(side.logp))))
    none = with_statistics(method, on_sides(pair, lambda side: replace(side, weight=None)))
    same(rows(method, ones), rows(method, none), **ROUND_OFF)
    same(gradients(method, ones), gradients(method, none), **ROUND_OFF)
    same(parts(method(ones))[1], parts(method(none))[1], **ROUND_OFF)


def credit_is_read(method: Any, make_pair: Maker) -> None:
    """An answer with weight 0 throughout trains no token, and the weight of a single token changes the loss."""

    def weighted(pair: Pair, role: str, where: Tensor) -> Pair:
        side = pair.sides[role]
        assert side.weight is not None
        return with_statistics(method, replace(pair, sides={**pair.sides, role: replace(side, weight=torch.where(where, 0.0, side.weight))}))

    if takes_no_credit(method):
        return
    pair = make_pair(0)
    before = rows(method, with_statistics(method, pair))
    for role in roles_of(method):
        row, token = torch.zeros_like(pair.sides[role].mask), torch.zeros_like(pair.sides[role].mask)
        row[0], token[0, 1] = True, True
        assert not gradients(method, weighted(pair, role, row))[f"{role}.logp"][0].any(), f"an answer of {role} with weight 0 has a gradient"
        after = rows(method, weighted(pair, role, token))
        assert any(before[name][0] != after[name][0] for name in before), f"the weight of a token of {role} changes nothing"


def _with_others(method: Any, name: str, value: float) -> list[Any]:
    """The method with other numbers that are in range: a little larger, a little smaller, and much larger for what is compared with data."""
    found = []
    for other in (1.1 * value + (0.05 if value >= 0 else -0.05), 0.9 * value, 4 * value):
        if other != value:
            with suppress(UsageError):
                found.append(replace(method, **{name: other}))
    return found


def settings_are_read(method: Any, make_pair: Maker) -> None:
    """Another number in any setting changes the loss, or what a step makes of the tables, of one pair or another: a bound binds some alone."""
    for name, value in dataclasses.asdict(method).items():
        if isinstance(value, float):
            others = _with_others(method, name, value)
            assert not others or any(_differs(method, others, make_pair(seed)) for seed in (0, 3)), f"setting {name} is not read"


def _differs(method: Any, others: list[Any], pair: Pair) -> bool:
    before, changed = _loss_and_tables(method, pair), [_loss_and_tables(other, pair) for other in others]
    return any(not torch.equal(before[term], after[term]) for after in changed for term in before)


def _loss_and_tables(method: Any, pair: Pair) -> dict[str, Tensor]:
    """The loss with tables as they are before the first step, and the tables after it."""
    if not hasattr(method, "make_state"):
        return rows(method, with_statistics(method, pair))
    tables = method.make_state(dict.fromkeys(method.categories, 2))
    seen = with_statistics(method, replace(pair, state=tables))
    return {**rows(method, seen), **{f"table {name}": own for name, own in method.update_state(tables, method.after_step(tables, seen)).items()}}


def column_statistics_need_no_pass(method: Any, make_pair: Maker) -> None:
    """Statistics of columns are the same whatever the log-probabilities are."""
    declared = getattr(method, "column_statistics", None)
    if declared is None:
        return
    pair = only(make_pair(0), roles_of(method))
    moved = with_leaves(pair, {name: value - 1.7 for name, value in leaves(pair).items()})
    same(*({name: statistic.value for name, statistic in declared(one).items()} for one in (moved, pair)))


def measures_are_of_the_tokens(method: Any, make_pair: Maker) -> None:
    """What the method logs is finite, a number and a count for every row, and garbage outside the masks changes none of it."""
    declared = getattr(method, "measures", None)
    if declared is None:
        return
    pair = with_statistics(method, make_pair(0))
    junk = lambda side: {f: torch.where(side.mask, v, torch.nan) for f in TOKEN_FIELDS if (v := getattr(side, f)) is not None}
    spoiled = on_sides(pair, lambda side: replace(side, **junk(side)))
    found = {f"{part} of {name}": getattr(term, part) for name, term in declared(pair).items() for part in ("value", "count")}
    assert all(value.shape == (len(pair.columns["row"]),) and bool(value.isfinite().all()) for value in found.values())
    same({f"{part} of {name}": getattr(term, part) for name, term in declared(spoiled).items() for part in ("value", "count")}, found)


class ReadColumns(dict[str, Tensor]):
    """Columns that know which of them were read by `[]`; `get` and `in` are for those that data may lack."""

    def __init__(self, given: Any) -> None:
        super().__init__(given)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


ALWAYS = frozenset({"position", "row"})
"""Columns that every pair has."""


def columns_are_declared(method: Any, make_pair: Maker) -> None:
    """Every column that the method counts on is declared, so that data without it end in a sentence and not in a KeyError."""
    pair = with_statistics(method, make_pair(0))
    columns = ReadColumns(pair.columns)
    method(replace(pair, columns=columns))
    declared = {name for kind in ("columns", "made", "categories") for name in getattr(method, kind, ())} | ({"label"} & needs_of(method))
    assert columns.read <= declared | ALWAYS, f"reads {sorted(columns.read - declared - ALWAYS)} without declaring it"


LAWS: tuple[Law, ...] = (
    shape_and_finiteness,
    garbage_under_the_mask,
    padding,
    rows_independent,
    permutation,
    micro_batches,
    gradient_is_right,
    wide_arithmetic,
    settings_survive_json,
    settings_are_read,
    counts_from_masks,
    weights_of_one,
    credit_is_read,
    columns_are_declared,
    column_statistics_need_no_pass,
    measures_are_of_the_tokens,
)
