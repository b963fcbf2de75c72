"""The tables that an objective carries from step to step: what a step found over all its rows and processes turns old tables into new ones."""

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.train.contract import Contract
from finegrain.train.distributed import broadcast_names, sum_tensor


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
    found = update(tables, _over_ranks(added, device))
    for name, table in found.items():
        if name not in tables:
            raise UsageError(f"{contract.name}: update_state gives {name}, which is no table of its state; known: {', '.join(sorted(tables))}")
        if table.shape != tables[name].shape:
            raise UsageError(f"{contract.name}: update_state gives {name} the shape {tuple(table.shape)}; the table has {tuple(tables[name].shape)}")
    return {name: found[name].detach().to(table) if name in found else table for name, table in tables.items()}


def _over_ranks(added: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Sums over ranks, of which one without rows knows neither names nor shapes."""
    described = {json.dumps([name, list(value.shape), str(value.dtype).removeprefix("torch.")]): value for name, value in added.items()}
    found = {}
    for text in broadcast_names(described, device):
        name, shape, dtype = json.loads(text)
        own = described.get(text, torch.zeros(shape, dtype=getattr(torch, dtype), device=device))
        found[name] = sum_tensor(own)
    return found
