"""Drives an objective the way the loop does: statistics over the whole step first, then rows."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from finegrain.types import Gathered, Pair, Side, Summed, Term

Values = dict[str, Tensor]

DEFAULT_ROLES = ("chosen", "rejected")
DEFAULT_NEEDS = frozenset({"reference"})


def roles_of(method: Any) -> tuple[str, ...]:
    """Sides that the gradient pass reads."""
    return getattr(method, "roles", DEFAULT_ROLES)


def all_roles(method: Any) -> tuple[str, ...]:
    """Sides that the statistics or the gradient pass read."""
    return (*roles_of(method), *getattr(method, "statistic_roles", ()))


def needs_of(method: Any) -> frozenset[str]:
    return getattr(method, "needs", DEFAULT_NEEDS)


def take(pair: Pair, rows: Tensor) -> Pair:
    """Some rows of a pair; statistics stay those of the step."""

    def pick(side: Side) -> Side:
        return replace(side, **{f.name: value[rows] for f in fields(side) if (value := getattr(side, f.name)) is not None})

    columns = {name: value[rows] for name, value in pair.columns.items()}
    return replace(pair, sides={role: pick(side) for role, side in pair.sides.items()}, columns=columns)


def only(pair: Pair, roles: tuple[str, ...]) -> Pair:
    """The pair with these sides and no other."""
    return replace(pair, sides={role: pair.sides[role] for role in roles})


def collect(method: Any, micro_batches: list[Pair]) -> Mapping[str, Tensor]:
    """What the method declares, of columns and of the pass, added or concatenated over micro-batches and detached."""
    of_pass = getattr(method, "statistic_roles", None) or roles_of(method)
    known: dict[str, Tensor] = {}
    for declared, roles in ((getattr(method, "column_statistics", None), roles_of(method)), (getattr(method, "statistics", None), of_pass)):
        if declared is not None:
            with torch.no_grad():
                known |= _joined([declared(only(replace(pair, statistics=known), roles)) for pair in micro_batches])
    return known


def _joined(found: list[Mapping[str, Summed | Gathered]]) -> Values:
    return {
        name: torch.cat([one[name].value for one in found]) if isinstance(first, Gathered) else torch.stack([one[name].value for one in found]).sum(0)
        for name, first in found[0].items()
    }


def with_statistics(method: Any, pair: Pair) -> Pair:
    """The pair as the gradient pass sees it: statistics filled in, sides of the statistics alone gone."""
    return only(replace(pair, statistics=collect(method, [pair])), roles_of(method))


def parts(result: Tensor | dict[str, Term]) -> tuple[Values, Values]:
    """Values and counts by term; a plain loss is one term with count 1 per row."""
    if isinstance(result, Tensor):
        return {"loss": result}, {"loss": torch.ones_like(result)}
    return {name: term.coefficient * term.value for name, term in result.items()}, {name: term.count for name, term in result.items()}


def rows(method: Any, pair: Pair) -> Values:
    """Values of each row by term; the pair has its statistics already."""
    return parts(method(pair))[0]


def step_loss(method: Any, micro_batches: list[Pair]) -> Tensor:
    """The loss of an optimiser step: for each term coefficient * sum(value) / sum(count), over all micro-batches."""
    statistics = collect(method, micro_batches)
    results = [parts(method(only(replace(pair, statistics=statistics), roles_of(method)))) for pair in micro_batches]
    names = results[0][0]
    ratios = [sum(v[name].sum() for v, _ in results) / sum(c[name].sum() for _, c in results) for name in names]
    return torch.stack(ratios).sum()


def leaves(pair: Pair) -> dict[str, Tensor]:
    """Tensors of the policy by role and field: what gradients reach."""
    names = ("logp", "prompt_logp", "entropy", "kl", "reference_kl", "reading", "outputs", "features")
    found = {f"{role}.{name}": getattr(side, name) for role, side in pair.sides.items() for name in names}
    return {name: value for name, value in found.items() if value is not None}


def with_leaves(pair: Pair, values: Mapping[str, Tensor]) -> Pair:
    """The pair with some of the policy's tensors exchanged."""
    sides = dict(pair.sides)
    for name, value in values.items():
        role, _, attribute = name.partition(".")
        sides[role] = replace(sides[role], **{attribute: value})
    return replace(pair, sides=sides)


def gradients(method: Any, pair: Pair) -> Values:
    """Gradient of the sum of all row values with respect to every policy tensor; zeros where none arrives."""
    live = {name: value.detach().clone().requires_grad_() for name, value in leaves(pair).items()}
    total = torch.stack([value.sum() for value in rows(method, with_leaves(pair, live)).values()]).sum()
    found = torch.autograd.grad(total, list(live.values()), allow_unused=True)
    return {name: torch.zeros_like(live[name]) if grad is None else grad for name, grad in zip(live, found, strict=True)}
