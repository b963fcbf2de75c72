"""An objective around another one: both have their say in what is needed, made, summed and carried on.

What only one of them may decide (a head, Q-values, a start, balanced terms, token columns) is the wrapper's where it declares it, else the inner
objective's, and an error where both do. Statistics of the inner objective are made of the swapped pair too, for `Pair.swapped()`.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from finegrain.errors import UsageError
from finegrain.train.contract import Contract
from finegrain.types import SWAPPED, Pair, Terms

ONE_OF_THEM = (
    ("outputs", "make_head"),
    ("action_value",),
    ("reading", "make_reader"),
    ("reward_head", "reward_weight"),
    ("start",),
    ("balanced",),
    ("prepare",),
    ("stage",),
    ("held_out_loss",),
    ("sample_by",),
    ("shape",),
    ("frozen_backbone",),
    ("frozen",),
    ("output_slopes",),
)
"""Declarations that go together and that only one of the two objectives can make."""
SIDES = frozenset({"chosen", "rejected"})
INNER = "wrapped/"
"""Before the names of what the inner objective sums for its tables, where one of the two replaces tables."""


def wrap_contract(outer: Contract, inner: Contract, declared: Set[str]) -> Contract:
    """The contract of a wrapper; `declared`: names that the wrapper declares itself."""
    if inner.gradient is not None:
        raise UsageError(f"{outer.name} is around {inner.name}, whose gradient rule makes a gradient of its own loss; wrap another objective")
    made: dict[str, Any] = {}
    for names in ONE_OF_THEM:
        own, theirs = (any(getattr(one, name) != getattr(BARE, name) for name in names) for one in (outer, inner))
        if own and theirs:
            raise UsageError(f"{outer.name} and {inner.name}, which it is around, both declare {names[0]}; only one of them can")
        if theirs:
            made |= {name: getattr(inner, name) for name in names}
    made |= {name: getattr(inner, name) for name in ("beta", "learning_rate", "embedding_factor", "module_decay") if name not in declared}
    own_needs = outer.needs if "needs" in declared else frozenset[str]()
    made |= {name: _joined(getattr(inner, name), getattr(outer, name)) for name in ("columns", "made", "categories", "token_columns")}
    roles = _joined(inner.roles, outer.roles if "roles" in declared else ())
    own_roles = () if outer.statistics is None else outer.statistic_roles if {"roles", "statistic_roles"} & declared else roles
    return replace(
        outer,
        **made,
        roles=roles,
        statistic_roles=_joined(inner.statistic_roles, own_roles),
        needs=inner.needs | own_needs,
        weights=inner.weights & outer.weights if "weights" in declared else inner.weights,
        statistics=_both(outer, inner, "statistics"),
        column_statistics=_both(outer, inner, "column_statistics"),
        row_columns=_both(outer, inner, "row_columns"),
        measures=_measures(outer, inner),
        assumed={**inner.assumed, **outer.assumed},
        modules=_apart(outer, "module", inner.modules, outer.modules),
        make_modules=_modules(outer, inner),
        state=_apart(outer, "table", inner.state, outer.state),
        make_state=_states(outer, inner),
        **_tables(outer, inner),
    )


BARE = Contract(objective=lambda pair: pair.chosen.logp.sum(-1))
"""The contract of an objective that declares nothing."""


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _apart(outer: Contract, kind: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings; raises UsageError where a name stands in both."""
    if both := sorted(first.keys() & second.keys()):
        raise UsageError(f"{outer.name} and the objective that it is around both have a {kind} {both[0]}; give one another name")
    return {**first, **second}


def _both(outer: Contract, inner: Contract, name: str) -> Callable[[Any], dict[str, Any]] | None:
    """What both make of a pair, or of the rows' columns, the inner objective's of the swapped pair too."""
    first, second = getattr(inner, name), getattr(outer, name)
    if first is None and second is None:
        return None

    def make(given: Any) -> dict[str, Any]:
        found = {} if first is None else dict(first(given))
        if first is not None and isinstance(given, Pair) and SIDES <= given.sides.keys():
            found |= {SWAPPED + key: value for key, value in first(given.swapped()).items()}
        return _apart(outer, name.removesuffix("s").replace("_", " "), found, {} if second is None else second(given))

    return make


def _measures(outer: Contract, inner: Contract) -> Callable[[Pair], Terms] | None:
    makers = [make for make in (inner.measures, outer.measures) if make is not None]
    if len(makers) < 2:
        return makers[0] if makers else None
    return lambda pair: _apart(outer, "measure", *(make(pair) for make in makers))


def _modules(outer: Contract, inner: Contract) -> Callable[[int, torch.Generator], Mapping[str, nn.Module]] | None:
    makers = [make for make in (inner.make_modules, outer.make_modules) if make is not None]
    if len(makers) < 2:
        return makers[0] if makers else None
    return lambda width, generator: _apart(outer, "module", *(make(width, generator) for make in makers))


def _states(outer: Contract, inner: Contract) -> Callable[[Mapping[str, int]], Mapping[str, Tensor]] | None:
    makers = [make for make in (inner.make_state, outer.make_state) if make is not None]
    if len(makers) < 2:
        return makers[0] if makers else None
    return lambda categories: _apart(outer, "table", *(make(categories) for make in makers))


def _tables(outer: Contract, inner: Contract) -> dict[str, Any]:
    """`after_step` and `update_state` of both: each reads its own sums, and without an update they are added to its tables."""
    if inner.after_step is None:
        return {"after_step": outer.after_step, "update_state": outer.update_state}
    if outer.after_step is None:
        return {"after_step": inner.after_step, "update_state": inner.update_state}
    parts = ((INNER, inner), ("", outer))

    def after_step(state: Mapping[str, Tensor], pair: Pair) -> dict[str, Tensor]:
        return {prefix + key: value for prefix, one in parts if one.after_step is not None for key, value in one.after_step(state, pair).items()}

    def update_state(state: Mapping[str, Tensor], sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        changed: dict[str, Tensor] = {}
        for prefix, one in parts:
            own = {key.removeprefix(INNER): value for key, value in sums.items() if key.startswith(INNER) is bool(prefix)}
            changed |= {key: state[key] + value for key, value in own.items()} if one.update_state is None else one.update_state(state, own)
        return changed

    return {"after_step": after_step, "update_state": update_state}
