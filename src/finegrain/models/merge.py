"""A merged checkpoint written shard by shard: about one shard of it is in memory at a time, and a block of every source."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import save_file

from finegrain.errors import ModelError, NonFiniteError
from finegrain.models.finite import is_finite, refuse_not_finite
from finegrain.models.load_errors import list_some
from finegrain.models.stored_weights import StoredWeights
from finegrain.weights.blocks import Change, MergeMethod, Products, inner_products, measure_change

PATTERN = "model{suffix}.safetensors"
INDEX = "model.safetensors.index.json"
LOOKED_AT = 8
"""Matrices by which it is seen whether checkpoints have a common origin."""
RELATED = 0.5
"""Smallest cosine between them: fine-tunes of one model have more than 0.9, models trained apart about 0 [choice]."""


class Sources(NamedTuple):
    """The checkpoints of a merge, which hold the same tensors."""

    models: Sequence[StoredWeights]
    base: StoredWeights | None

    @property
    def every(self) -> list[StoredWeights]:
        """The models, then the base."""
        return [*self.models, *([] if self.base is None else [self.base])]

    @property
    def merged(self) -> list[str]:
        """Names of the tensors that are merged, in their order in the files."""
        first = self.models[0]
        return [name for name in sorted(first.shapes) if first.skeleton.is_weight(name, first.dtypes[name])]


class MergedFiles(NamedTuple):
    """What a merge did."""

    tensors: int
    """Merged tensors."""
    copied: Sequence[str]
    """Buffers, taken from the first model as they are."""
    shards: int
    change: Change
    """From the first model to the result, over merged tensors."""


def check_tensors(sources: Sources) -> None:
    """Raises ModelError where a checkpoint holds other tensors than the first one, or the same ones in other shapes."""
    first, *others = sources.every
    for other in others:
        for one, two in ((first, other), (other, first)):
            if lacking := sorted(one.shapes.keys() - two.shapes.keys()):
                raise ModelError(f"{two.source} lacks tensors that {one.source} holds: {list_some(lacking)}; merging needs the same architecture")
        unlike = [name for name in sorted(first.shapes) if first.shapes[name] != other.shapes[name]]
        if unlike:
            name = unlike[0]
            raise ModelError(
                f"{len(unlike)} tensors of {other.source} have other shapes than those of {first.source}, the first is {name}: "
                f"{other.shapes[name]} and {first.shapes[name]}; merging needs the same sizes and the same vocabulary"
            )


def check_related(sources: Sources) -> list[float | None]:
    """Cosine of each further checkpoint to the first, over some of their matrices; raises ModelError for models that were trained apart."""
    first, *others = sources.every
    matrices = [name for name in sources.merged if len(first.shapes[name]) > 1]
    looked_at = matrices[:: max(1, -(-len(matrices) // LOOKED_AT))]
    found = []
    for other in others:
        products = Products(0.0, 0.0, 0.0)
        for name in looked_at:
            products += inner_products(first.read(name), other.read(name))
        cosine = products.cosine
        if cosine is not None and cosine < RELATED:
            raise ModelError(
                f"{other.source} and {first.source} do not come from the same base: the cosine of their weights is {cosine:.2f}, and that of "
                "fine-tunes of one model above 0.9; their mean or difference has no meaning"
            )
        found.append(cosine)
    return found


def write_merged(method: MergeMethod, sources: Sources, folder: Path, *, dtype: torch.dtype | None, shard_bytes: int) -> MergedFiles:
    """The merged weights as safetensors in an existing folder; `dtype`: None for that of each tensor in the first model."""
    first, merged = sources.models[0], frozenset(sources.merged)
    kinds = {name: (dtype or first.dtypes[name]) if name in merged else first.dtypes[name] for name in sorted(first.shapes)}
    sizes = {name: math.prod(first.shapes[name]) * kind.itemsize for name, kind in kinds.items()}
    plan = split_state_dict_into_shards_factory(sizes, get_storage_size=lambda size: size, filename_pattern=PATTERN, max_shard_size=shard_bytes)
    change = Change(0, 0, 0.0, 0.0)
    for file, names in plan.filename_to_tensors.items():
        shard = {}
        for name in names:
            before = first.read(name)
            shard[name] = _merge(method, sources, name, kinds[name]) if name in merged else before
            if name in merged:
                change += measure_change(before, shard[name])
        save_file(shard, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return MergedFiles(len(merged), sorted(first.shapes.keys() - merged), len(plan.filename_to_tensors), change)


def _merge(method: MergeMethod, sources: Sources, name: str, dtype: torch.dtype) -> torch.Tensor:
    """One tensor; raises an error that names it where it is not finite."""
    found = method([one.read(name) for one in sources.models], None if sources.base is None else sources.base.read(name), dtype)
    if not is_finite(found):
        for one in sources.every:
            refuse_not_finite(one.source, [(name, one.read(name))])
        raise NonFiniteError(f"{name} of the merged model is beyond the range of {dtype}; take a smaller {method.strength}, or --save-dtype float32")
    return found
