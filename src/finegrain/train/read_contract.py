"""The contract of an objective: its declarations, read once, with defaults filled in."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from finegrain.declarations import read_declarations
from finegrain.errors import UsageError
from finegrain.train.balance import TABLE
from finegrain.train.contract import NEEDS, Contract
from finegrain.train.wrapping import wrap_contract


def contract_of(objective: Any, seed: int = 0) -> Contract:
    """The declarations of an objective; a plain callable has none and gets chosen, rejected and a reference. An unknown declaration raises."""
    found = read_declarations(objective, Contract, "objective")
    declared = Contract(**(found | {"objective": objective, "modules": {}, "state": {}}))
    needs = frozenset(declared.needs)
    if needs - NEEDS:
        raise UsageError(f"{type(objective).__name__} needs {sorted(needs - NEEDS)}; known: {sorted(NEEDS)}")
    if declared.gradient is not None and not declared.gradient_cost:
        raise UsageError(f"{declared.name} declares a gradient rule without gradient_cost: what it costs beside one backward pass, in words")
    roles = tuple(declared.roles)
    modules: Mapping[str, nn.Module] = {}
    if (make_modules := found.get("modules")) is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules = make_modules()
    state = {**(make_state() if (make_state := found.get("state")) is not None else {}), **({} if declared.start is None else declared.start.state)}
    own = replace(
        declared,
        roles=roles,
        needs=needs if declared.outputs or "sampled" in needs else needs | {"logp"},
        outputs=int(declared.outputs),
        values=int(declared.values),
        beta=float(declared.beta),
        statistic_roles=() if declared.statistics is None else tuple(found.get("statistic_roles", roles)),
        modules=modules,
        state=state if declared.balanced is None else state | {TABLE: torch.ones(1)},
        learning_rate=float(declared.learning_rate),
        embedding_factor=float(declared.embedding_factor),
        module_decay=float(declared.module_decay),
        weights=frozenset(declared.weights),
    )
    return own if own.wraps is None else wrap_contract(own, contract_of(own.wraps, seed), found.keys())
