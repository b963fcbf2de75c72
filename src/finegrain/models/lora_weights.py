"""The whole weights of a LoRA adapter on its base, one tensor at a time: the base's tensor plus scale * B A, in float32.

The product is taken before anything is merged, because the mean of two adapters' factors is not the factor of their mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from finegrain.errors import ModelError
from finegrain.models.adapter_files import CONFIG, AdapterFiles, is_adapter, list_adapters, read_adapter
from finegrain.models.hub_files import fetch_all_files
from finegrain.models.load_errors import list_some, one_line
from finegrain.models.stored_weights import Skeleton, StoredWeights, open_folder

PREFIX = "base_model.model."
CHANGING = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)
"""Entries of a config with which an adapter is no plain scale * B A."""
PLAIN_STARTS = ("gaussian", "eva", "orthogonal")
"""Named initialisations that leave the base's weights as they are."""


@dataclass(frozen=True)
class LoraWeights:
    """A model that is a LoRA adapter on a base."""

    files: AdapterFiles
    base: StoredWeights
    factors: Mapping[str, tuple[str, str]]
    """By the name of a weight, the adapter's tensors A and B."""
    whole: Mapping[str, str]
    """By the name of a weight, the tensor of the adapter that replaces it."""

    @property
    def source(self) -> str:
        """Folder or Hub name of the adapter."""
        return self.files.source

    @property
    def folder(self) -> Path:
        """Of the base."""
        return self.base.folder

    @property
    def skeleton(self) -> Skeleton:
        """Of the base."""
        return self.base.skeleton

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the base."""
        return self.base.shapes

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """Of the base."""
        return self.base.dtypes

    def read(self, name: str) -> torch.Tensor:
        """One tensor; in float32 or wider where the adapter changes it."""
        found = self.files.tensor(self.whole[name]) if name in self.whole else self.base.read(name)
        if name not in self.factors:
            return found
        first, second = (self.files.tensor(factor).to(torch.promote_types(found.dtype, torch.float32)) for factor in self.factors[name])
        product = second @ first
        flipped = self.factors[name][0].endswith("lora_embedding_A") or name in self.skeleton.transposed
        return found + (product.T if flipped else product) * _scale(self.files.facts, name.rpartition(".")[0], len(first))


def open_weights(source: str) -> StoredWeights:
    """The weights of a checkpoint folder, a Hub name or a LoRA adapter, whose base may be an adapter itself."""
    local = fetch_all_files(fetch_all_files(source, "config.json"), CONFIG)
    if not is_adapter(local):
        return open_folder(source, local)
    files = read_adapter(local)
    _refuse_other_kinds(source, files)
    list_adapters(files)  # for its error: one that is based on itself has no weights
    return _place(replace(files, source=source), open_weights(files.base))


def _place(files: AdapterFiles, base: StoredWeights) -> LoraWeights:
    """Finds the weight of the base that each tensor of the adapter belongs to."""
    parts: dict[str, dict[str, str]] = {}
    whole, unknown = {}, []
    for stored in files.shapes:
        name = stored.removeprefix(PREFIX)
        module, _, kind = name.removesuffix(".weight").rpartition(".")
        target = base.skeleton.rename(f"{module}.weight")
        if kind in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B") and target in base.shapes:
            parts.setdefault(target, {})[kind[-1]] = stored
        elif (own := base.skeleton.rename(name.replace(".base_layer.", "."))) in base.shapes:
            whole[own] = stored
        else:
            unknown.append(stored)
    unknown += [stored for found in parts.values() if len(found) < 2 for stored in found.values()]
    if unknown:
        raise ModelError(f"the adapter {files.source} has weights that do not belong to its base {base.source}: {list_some(unknown)}")
    for name, stored in whole.items():
        if files.shapes[stored] != base.shapes[name]:
            raise ModelError(
                f"the adapter {files.source} holds {name} of the shape {files.shapes[stored]}, and its base {base.shapes[name]}: tokens were "
                "added; give the base the same ones (resize_token_embeddings) and save it, then merge"
            )
    for name, other in base.skeleton.tied.items():
        if other in parts or other in whole:
            raise ModelError(
                f"the adapter {files.source} changes {other} alone, and its base {base.source} has one tensor for it and {name}; "
                "untie the base first (tie_word_embeddings), then merge"
            )
    return LoraWeights(files, base, {name: (found["A"], found["B"]) for name, found in parts.items()}, whole)


def _refuse_other_kinds(source: str, files: AdapterFiles) -> None:
    """Raises ModelError for adapters that are not a product of two factors on unchanged weights."""
    facts = files.facts
    if files.is_reward:
        raise ModelError(f"{source} is the adapter of a reward model, not of a causal language model")
    kind, start = facts.get("peft_type"), facts.get("init_lora_weights", True)
    named = [name for name in CHANGING if facts.get(name)]
    if isinstance(start, str) and start not in PLAIN_STARTS:
        named.append(f"init_lora_weights {one_line(start)}")
    if kind != "LORA" or named:
        what = f"of the type {one_line(kind)}" if kind != "LORA" else f"a LoRA adapter with {', '.join(named)}"
        remedy = "make a whole checkpoint of it first, with peft's merge_and_unload and save_pretrained"
        raise ModelError(f"{source} is {what}, whose update is not scale * B A; {remedy}")


def _scale(facts: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r), of one module, where its config has its own."""
    from peft.utils.other import get_pattern_key

    own: Mapping[str, float] = facts.get("alpha_pattern") or {}
    alpha = float(own.get(get_pattern_key(own.keys(), module), facts.get("lora_alpha", 8)))
    return alpha / rank**0.5 if facts.get("use_rslora") else alpha / rank
