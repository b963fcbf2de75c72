"""An adapter's folder, read before peft loads it: its type, its base, the shapes of its weights, and whether it has a reward model's score head."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from finegrain.errors import ModelError
from finegrain.models.finite import refuse_not_finite
from finegrain.models.hub_files import find_file
from finegrain.models.load_errors import explain_load_errors, list_some, one_line, print_line

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
HEADS = ("score", "classifier", "value_head")
"""Names that stock classes and reward trainers use for the layer that gives the score."""
HEAD = re.compile(rf"^(?:base_model\.model\.)?({'|'.join(HEADS)})\.(?:modules_to_save\.)?(?:default\.)?(weight|bias)$")
REWARD_TASKS = ("SEQ_CLS", "TOKEN_CLS")


@dataclass(frozen=True)
class AdapterFiles:
    """One adapter."""

    source: str
    """Folder or Hub name."""
    folder: Path
    """The local folder of its files."""
    facts: Mapping[str, Any]
    """adapter_config.json."""
    base: str
    """Folder or Hub name of the model it was trained on, which may itself be an adapter."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shapes of its tensors, by name."""

    @property
    def head(self) -> dict[str, str]:
        """Names of the score head's tensors by `weight` and `bias`; empty without a head."""
        found = {name: HEAD.match(name) for name in self.shapes}
        return {match[2]: name for name, match in found.items() if match is not None}

    @property
    def task(self) -> str | None:
        """The task type, as named by peft."""
        return self.facts.get("task_type")

    @property
    def is_reward(self) -> bool:
        """Whether it was made for a classification model, as reward trainers do."""
        return self.task in REWARD_TASKS or bool(self.head)

    def tensor(self, name: str) -> torch.Tensor:
        """One of its tensors."""
        file = self.folder / WEIGHTS
        with explain_load_errors(f"cannot read {file}"), safe_open(file, "pt") as tensors:
            found: torch.Tensor = tensors.get_tensor(name)
        return found


def is_adapter(source: Any) -> bool:
    """Whether a source is the folder or the Hub name of an adapter, or a model that has one."""
    return find_file(source, CONFIG) is not None if isinstance(source, (str, Path)) else hasattr(source, "peft_config")


def read_adapter(source: str) -> AdapterFiles:
    """Reads an adapter's files; raises ModelError where it cannot be put on a model."""
    config, weights = find_file(source, CONFIG), find_file(source, WEIGHTS)
    if config is None or weights is None:
        raise ModelError(f"{source} has an {CONFIG} but no {WEIGHTS}; expected safetensors (pickled adapters, .bin, are never read)")
    with explain_load_errors(f"cannot read {config}"):
        facts = json.loads(config.read_text())
    if not isinstance(facts, dict):
        raise ModelError(f"cannot read {config}: expected an object of names and values")
    base = facts.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"the adapter {source} does not name its base model (base_model_name_or_path in {CONFIG})")
    _refuse_type(source, facts.get("peft_type"))
    with explain_load_errors(f"cannot read {weights}"), safe_open(weights, "pt") as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    return AdapterFiles(source, weights.parent, facts, base, shapes)


def attach_adapter(model: Any, files: AdapterFiles) -> tuple[Any, list[str]]:
    """The model with the adapter on it, trainable, and the names of the adapter's weights that are not used.

    The score head of a reward adapter is left out, since the model may have none; embeddings are resized to those of the adapter.
    """
    from peft import PeftModel

    what = f"cannot put the adapter {files.source} on {files.base}"
    with explain_load_errors(what), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft warns about is an error here, or reported below
        config = _config(files)
        _resize(model, files)
        made = PeftModel.from_pretrained(model, files.source, config=config, is_trainable=True, torch_device="cpu")
        found = made.load_adapter(files.source, made.active_adapter, is_trainable=True, torch_device="cpu")  # a second time, for its report
    if found.missing_keys:
        raise ModelError(f"{what}: the file lacks weights that {CONFIG} requires: {list_some(found.missing_keys)}")
    refuse_not_finite(files.source, ((name, weight) for name, weight in made.named_parameters() if weight.requires_grad))
    return made, [name for name in found.unexpected_keys if HEAD.match(name) is None]


def _config(files: AdapterFiles) -> Any:
    """peft's config, for a model without a score head."""
    from peft import PeftConfig, __version__

    config = PeftConfig.from_pretrained(files.source)
    unknown = sorted(set(files.facts) - {field.name for field in fields(config)})
    if unknown:
        print_line(f"{files.source}: {CONFIG} has entries that peft {__version__} does not know; they are ignored: {list_some(unknown)}")
    if files.is_reward:
        config.task_type = None
        kept = [name for name in getattr(config, "modules_to_save", None) or [] if name not in HEADS]
        if hasattr(config, "modules_to_save"):
            config.modules_to_save = kept or None
    if files.head and hasattr(config, "exclude_modules"):  # the head is read from the file as a whole, even where the targets include it
        before = config.exclude_modules
        config.exclude_modules = rf"({before})|(.*\.)?({'|'.join(HEADS)})" if isinstance(before, str) else [*(before or []), *HEADS]
    return config


def _resize(model: Any, files: AdapterFiles) -> None:
    """Resizes the model's embeddings to those the adapter was trained with: it holds the whole matrix, or the added rows."""
    rows = model.get_input_embeddings().weight.shape[0]
    names = {f"base_model.model.{name}": module for name, module in model.named_modules()}
    ends = {id(layer) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None}
    held = set()
    for name, shape in files.shapes.items():
        owner = next((names[start] for start in _owners(name) if start in names), None)
        if owner is None or id(owner) not in ends:
            continue
        own = name.removesuffix(".weight").rsplit(".", 1)[-1]
        if own == "lora_embedding_A":
            held.add(shape[1])
        elif own != "lora_A" and own != "lora_embedding_B" and "trainable_tokens" not in name:
            held.add(shape[0])
    added = files.facts.get("trainable_token_indices")
    indices = [one for part in added.values() for one in part] if isinstance(added, Mapping) else added or []
    wanted = max(held) if held else max([rows, *(index + 1 for index in indices)])
    if wanted != rows:
        model.resize_token_embeddings(wanted, mean_resizing=False)


def _owners(name: str) -> Iterator[str]:
    """A tensor's name without its last parts, longest first."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))


def list_adapters(files: AdapterFiles) -> list[AdapterFiles]:
    """The adapter and those it is based on, the last one on a whole model; raises ModelError where one is based on itself."""
    found, seen = [files], [str(Path(files.source).resolve())]
    while is_adapter(found[-1].base):
        base = str(Path(found[-1].base).resolve())
        seen.append(base)
        if base in seen[:-1]:
            told = " → ".join(map(one_line, seen))
            raise ModelError(f"the adapter {files.source} is based on itself ({told}); base_model_name_or_path must name the model it was trained on")
        found.append(read_adapter(found[-1].base))
    return found


def _refuse_type(source: str, kind: object) -> None:
    from peft import __version__
    from peft.config import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if kind is None:
        raise ModelError(f"cannot read the adapter {source}: {CONFIG} names no peft_type")
    known = {str(name.value): made for name, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if not isinstance(kind, str) or kind not in known:
        raise ModelError(f"the adapter {source} is of the type {one_line(kind)}, which peft {__version__} does not know; a newer version may")
    if issubclass(known[kind], PromptLearningConfig):
        raise ModelError(f"the adapter {source} is of the type {kind}, which adds vectors to the prompt; expected an adapter of weights such as LoRA")
