"""The tables that an objective carries from step to step: what a step found over all its rows and processes turns old tables into new ones."""

from collections.abc import Mapping

import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.ops.precision import place_on
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.distributed import sum_tensor, with_shapes


def make_tables(contract: Contract, data: TrainingSet, device: torch.device) -> dict[str, Tensor]:
    """The tables of the objective before the first step."""
    sized = {} if contract.make_state is None else contract.make_state(data.categories)
    return {name: place_on(table, device) for name, table in {**contract.state, **sized}.items()}


def new_tables(contract: Contract, tables: Mapping[str, Tensor], added: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tables after a step, the same on every rank; `added`: what `after_step` found in this rank's rows, which may be none.

    Without `update_state` the sums over ranks are added to the tables of their names. With it they may have any name and shape, and the
    function says what the tables become.
    """
    update = contract.update_state
    if update is None:
        if unknown := sorted(added.keys() - tables.keys()):
            raise UsageError(f"{contract.name}: after_step gives {unknown[0]}, which is no table of its state; known: {', '.join(sorted(tables))}")
        return {name: table + sum_tensor(added.get(name, torch.zeros_like(table)).to(table.dtype)) for name, table in sorted(tables.items())}
    found = update(tables, {name: sum_tensor(value) for name, value in with_shapes(added, device).items()})
    for name, table in found.items():
        if name not in tables:
            raise UsageError(f"{contract.name}: update_state gives {name}, which is no table of its state; known: {', '.join(sorted(tables))}")
        if table.shape != tables[name].shape:
            raise UsageError(f"{contract.name}: update_state gives {name} the shape {tuple(table.shape)}; the table has {tuple(tables[name].shape)}")
    return {name: found[name].detach().to(table) if name in found else table for name, table in tables.items()}
