"""Weights of a checkpoint read one tensor at a time, without a model in memory; those of an adapter are made of it and its base."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from finegrain.errors import ModelError
from finegrain.models.load import refuse_other_tasks
from finegrain.models.load_errors import explain_load_errors
from finegrain.models.quantised import refuse_method, refuse_quantised, refuse_traces
from finegrain.models.stock import FLOATS, list_weight_files, read_config, refuse_pickled, refuse_unknown

OLD_BUFFERS = ("rotary_emb.inv_freq", "attn.masked_bias", "attn.bias")
"""Ends of names of buffers that older versions of transformers stored, where the model has no such parameter."""

INTEGERS = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
"""Dtypes of buffers, as safetensors names them."""


@runtime_checkable
class StoredWeights(Protocol):
    """A language model's weights on disk."""

    @property
    def source(self) -> str:
        """Folder or Hub name, as it was given."""

    @property
    def folder(self) -> Path:
        """The local folder with the config of the whole model: an adapter's base."""

    @property
    def skeleton(self) -> "Skeleton":
        """What the architecture says of its tensors."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the stored tensors, tied ones once."""

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """Of the same; of an adapter's model those of its base."""

    def read(self, name: str) -> torch.Tensor:
        """One tensor."""


@dataclass(frozen=True)
class Skeleton:
    """A model without numbers."""

    config: PretrainedConfig
    names: frozenset[str]
    """Of parameters and persistent buffers."""
    buffers: frozenset[str]
    tied: Mapping[str, str]
    """Names of tensors that are other ones' by config, with those."""
    transposed: frozenset[str]
    """Weights that are stored (inputs, outputs)."""
    prefix: str
    """Of the names within the base model."""

    def is_weight(self, name: str, dtype: torch.dtype) -> bool:
        """Whether a stored tensor was trained: floating, and no buffer."""
        known = name in self.names
        return dtype.is_floating_point and name not in self.buffers and (known or not name.endswith(OLD_BUFFERS))

    def rename(self, name: str) -> str:
        """The model's name of a stored tensor: some checkpoints hold the base model alone, without its prefix."""
        longer = f"{self.prefix}.{name}"
        return longer if name not in self.names and longer in self.names else name


def read_skeleton(folder: str) -> Skeleton:
    """What a checkpoint's config says of its tensors; raises ModelError for what is no causal language model that transformers knows."""
    facts = read_config(folder)
    refuse_quantised(folder, facts)
    refuse_other_tasks(folder, facts)
    refuse_unknown(folder, {**facts, "auto_map": None}, False)
    with explain_load_errors(f"cannot read the config of {folder}", facts):
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    return Skeleton(
        config=config,
        names=frozenset(model.state_dict()),
        buffers=frozenset(name for name, _ in model.named_buffers()),
        tied=dict(model.all_tied_weights_keys),
        transposed=frozenset(f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)),
        prefix=model.base_model_prefix,
    )


@dataclass(frozen=True)
class FolderWeights:
    """A whole checkpoint, in one file or in several."""

    source: str
    folder: Path
    skeleton: Skeleton
    places: Mapping[str, tuple[Path, str]]
    """By the model's name: file, and name in it."""
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]

    def read(self, name: str) -> torch.Tensor:
        """One tensor, mapped from its file."""
        file, stored = self.places[name]
        with explain_load_errors(f"cannot read {file}"), safe_open(file, "pt") as tensors:
            found: torch.Tensor = tensors.get_tensor(stored)
        return found


def open_folder(source: str, local: str) -> FolderWeights:
    """The weights of a checkpoint folder; `source`: its name for messages."""
    skeleton, folder = read_skeleton(local), Path(local)
    refuse_pickled(local)
    places: dict[str, tuple[Path, str]] = {}
    shapes, dtypes = {}, {}
    for file in list_weight_files(local, folder):
        with explain_load_errors(f"cannot read {file}"), safe_open(file, "pt") as tensors:
            for stored in tensors.keys():
                name, told = skeleton.rename(stored), tensors.get_slice(stored)
                places[name], shapes[name] = (file, stored), tuple(told.get_shape())
                dtypes[name] = _dtype(source, stored, told.get_dtype())
    refuse_traces(source, list(places))
    if not places:
        raise ModelError(f"{source} holds no weights: expected model.safetensors, or shards with model.safetensors.index.json")
    found = FolderWeights(source, folder, skeleton, places, shapes, dtypes)
    once = dict(_tied_once(found))
    kept = {name: once.get(name, name) for name in places}
    names = {stored: name for stored, name in kept.items() if name is not None}
    return replace(
        found,
        places={name: places[stored] for stored, name in names.items()},
        shapes={name: shapes[stored] for stored, name in names.items()},
        dtypes={name: dtypes[stored] for stored, name in names.items()},
    )


def _tied_once(weights: FolderWeights) -> Iterable[tuple[str, str | None]]:
    """Stored tensors that the config ties to others: None where both are there, the other's name where that one is missing."""
    for name, other in weights.skeleton.tied.items():
        if name not in weights.places:
            continue
        if other not in weights.places:
            yield name, other
        elif not torch.equal(weights.read(name), weights.read(other)):
            raise ModelError(f"{weights.source}: config.json ties {name} to {other}, but the files hold different numbers for them")
        else:
            yield name, None


def _dtype(source: str, name: str, told: str) -> torch.dtype:
    """The dtype of a stored tensor; raises ModelError for floating-point numbers of 8 bits and less, and for weights that are integers."""
    if told not in FLOATS and (name.endswith(".weight") or told not in INTEGERS):
        refuse_method(source, f"{told} weights")
    return FLOATS.get(told) or INTEGERS[told]
