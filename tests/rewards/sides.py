"""Sides of given head outputs, for worked numbers."""

import torch

from finegrain.types import Pair, Side


def side(rows: list[list[list[float]]]) -> Side:
    """Ragged (T, K) outputs per row, padded with NaN."""
    width, outputs = max(map(len, rows)), len(rows[0][0])
    values = torch.full((len(rows), width, outputs), float("nan"), dtype=torch.float64)
    for row, tokens in enumerate(rows):
        values[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.float64).reshape(-1, outputs)
    mask = ~values[..., 0].isnan()
    return Side(logp=torch.zeros(mask.shape, dtype=torch.float64), mask=mask, outputs=values)


def pair(chosen: list[list[list[float]]], rejected: list[list[list[float]]], **columns: list[float]) -> Pair:
    """Chosen and rejected outputs, and columns of the rows."""
    named = {"row": [float(row) for row in range(len(chosen))], **columns}
    return Pair(
        sides={"chosen": side(chosen), "rejected": side(rejected)},
        columns={name: torch.tensor(values, dtype=torch.float64) for name, values in named.items()},
    )
