"""Inner products of the gradients of several losses at the output layer, over a whole optimiser step: one pass without a gradient."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from finegrain.models.score import Precision
from finegrain.models.scorer import Request, Scorer
from finegrain.ops.logprobs import TokenValues
from finegrain.ops.output_gradients import inner_products
from finegrain.train.collate import Batch
from finegrain.train.distributed import sum_tensor, with_shapes
from finegrain.types import Pair


def output_gram(
    scorer: Scorer,
    batches: Iterable[Batch],
    slopes: Callable[[Pair], Tensor],
    view: Callable[[Batch, TokenValues], Pair],
    precision: Precision,
    temperature: float,
) -> Tensor:
    """(n, n) float64; `slopes` are those of a contract's `output_slopes`, `view` what it sees of a micro-batch. Every process calls it."""
    total: dict[str, Tensor] = {}
    with torch.no_grad(), precision.autocast():
        for batch in batches:
            found = scorer(batch.groups, Request(temperature=temperature, slopes=_flat_slopes(batch, slopes, view))).output_gradients
            total = {"": found if not total else total[""] + found}
    return inner_products(sum_tensor(with_shapes(total, scorer.device)[""]))


def _flat_slopes(batch: Batch, slopes: Callable[[Pair], Tensor], view: Callable[[Batch, TokenValues], Pair]) -> Callable[[Tensor], Tensor]:
    """The slopes at the scored tokens in packed order."""
    (slot,) = batch.slots.values()

    def read(logp: Tensor) -> Tensor:
        found = slopes(view(batch, TokenValues(logp)))
        flat = torch.zeros(len(logp), found.shape[-1], dtype=found.dtype, device=found.device)
        return flat.index_put((slot.flat,), found[slot.rows, slot.columns])

    return read
