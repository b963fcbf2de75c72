"""Arrays of answers of different lengths: padded, stacked, and gathered from all processes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from finegrain.generate.sampling import Sample
from finegrain.online.rollout import Ended
from finegrain.train.distributed import gather_by_position, world
from finegrain.types import Ragged


def pad(arrays: Sequence[np.ndarray]) -> Tensor:
    """(B, T, ...) with 0 behind the end of an array; float64 stays, other numbers become float32."""
    width = max((len(array) for array in arrays), default=0)
    wide = any(array.dtype == np.float64 for array in arrays)
    out = np.zeros((len(arrays), width, *(arrays[0].shape[1:] if len(arrays) else ())), dtype=np.float64 if wide else np.float32)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
    return torch.from_numpy(out)


def stack_rows(rows: Ragged) -> Tensor:
    """(B, n) of rows of n numbers."""
    return torch.from_numpy(np.stack([own.reshape(-1) for own in rows]))


def mean(values: Tensor) -> float:
    """Of the numbers that are there; NaN for none."""
    given = values[~values.isnan()]
    return float(given.double().mean()) if len(given) else float("nan")


def gather_ragged(arrays: Ragged, positions: Sequence[int], count: int, device: torch.device) -> Ragged:
    """Arrays of all processes in the order of the buffer, bit for bit."""
    if world() == 1:
        return arrays
    lengths = gather_by_position(torch.tensor([float(len(array)) for array in arrays], dtype=torch.float64), positions, count, torch.float64).long()
    tail = gather_by_position(
        torch.tensor([[float(np.prod(array.shape[1:], dtype=int))] for array in arrays], dtype=torch.float64).reshape(-1, 1),
        positions,
        count,
        torch.float64,
    )
    wide = gather_by_position(
        torch.tensor([[float(array.dtype == np.float64)] for array in arrays], dtype=torch.float64).reshape(-1, 1), positions, count, torch.float64
    )
    dims = gather_by_position(
        torch.tensor([[float(array.ndim)] for array in arrays], dtype=torch.float64).reshape(-1, 1), positions, count, torch.float64
    )
    most, columns = int(lengths.max()), int(tail.max())
    padded = torch.zeros(len(arrays), most, columns, dtype=torch.float64)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = torch.from_numpy(array.reshape(len(array), columns).astype(np.float64))
    whole = gather_by_position(padded, positions, count, torch.float64).numpy()
    dtype = np.float64 if bool(wide.max()) else np.float32
    found = [whole[row, : int(length)].astype(dtype) for row, length in enumerate(lengths)]
    return [own[:, 0] if int(dims.max()) == 1 else own for own in found]


def gather_samples(own: Sequence[Sample], positions: Sequence[int], count: int, device: torch.device) -> list[Sample]:
    """Answers of all processes in the order of the buffer; ids travel exactly."""
    if world() == 1:
        return list(own)
    ids = gather_ragged([sample.ids.astype(np.float64) for sample in own], positions, count, device)
    ended = gather_by_position(torch.tensor([float(sample.ended) for sample in own], dtype=torch.float64), positions, count, torch.float64)
    logp = gather_ragged([sample.logp for sample in own], positions, count, device)
    return [Sample(one.astype(np.int32), Ended(int(how)), lp) for one, how, lp in zip(ids, ended, logp, strict=True)]
