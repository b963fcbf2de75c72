"""Statistics of a whole optimiser step: reduced over its micro-batches and over the processes, without gradient."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.train.batches import Step
from finegrain.train.distributed import gather_by_position, rank, sum_wide, with_shapes
from finegrain.types import Gathered, Pair, Summed

Statistics = Callable[[Pair], Mapping[str, Summed | Gathered]]


def own_positions(step: Step) -> list[int]:
    """Places of this rank's rows among those of the step, in the order of its micro-batches."""
    return [position for part in step.micro[rank()] for position in part]


def reduce_statistics(declared: Statistics, pairs: Iterable[Pair], step: Step, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """What the method declares of this rank's micro-batches, over all of them and all ranks; every rank calls it, with or without rows."""
    summed: dict[str, Tensor] = {}
    gathered: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for pair in pairs:
            for name, statistic in declared(pair).items():
                if isinstance(statistic, Gathered):
                    gathered.setdefault(name, []).append(statistic.value)
                else:
                    summed[name] = summed.get(name, torch.zeros_like(statistic.value)) + statistic.value
    positions = own_positions(step)
    reduced = {name: sum_wide(value) for name, value in with_shapes(summed, device).items()}
    own = {name: torch.cat(values) for name, values in gathered.items()}
    rows = with_shapes({name: value[:0] for name, value in own.items()}, device)
    return reduced | {name: gather_by_position(own.get(name, none), positions, len(step.rows), dtype) for name, none in rows.items()}


def join_statistics(method: str, of_columns: Mapping[str, Tensor], of_pass: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All statistics of a method; one name stands for one of them."""
    if both := sorted(of_columns.keys() & of_pass.keys()):
        raise UsageError(f"{method}: {both[0]} is a statistic and a column statistic; give one another name")
    return {**of_columns, **of_pass}
