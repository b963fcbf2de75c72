"""Content hashes of models and token rows, on which a cached reference value depends."""

import functools
import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finegrain.files import replace_file
from finegrain.models.adapter_files import is_adapter, list_adapters, read_adapter
from finegrain.models.load import Policy
from finegrain.models.scorer import causal_lm

BESIDE = ("tokenizer", "generation", "posterior")
"""Parts of file names beside a model that do not affect what it computes; a posterior changes a reward's uncertainty, not the reward."""


def model_fingerprint(policy: Policy, memory: Path) -> str:
    """sha256 of a model's weights and config: of its files, each hashed once per size and mtime, or of the tensors of a model object."""
    folders = [] if policy.in_memory else checkpoint_folders(policy.source)
    if not folders or not all(folder.is_dir() for folder in folders):
        return _hash_tensors(policy.model)
    return folders_fingerprint(folders, memory, b"nf4" if policy.four_bit else b"")


def checkpoint_folders(source: str) -> list[Path]:
    """The folder of a checkpoint, and those that it is an adapter of."""
    adapters = list_adapters(read_adapter(source)) if Path(source).is_dir() and is_adapter(source) else []
    return [Path(source), *(Path(adapter.base) for adapter in adapters)]


def folders_fingerprint(folders: Iterable[Path], memory: Path, salt: bytes = b"") -> str:
    """sha256 of the weights and configs of a checkpoint folder and of those that it is an adapter of, each file hashed once per size and mtime."""
    files = [file for folder in folders for file in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*config.json"))]
    digest = hashlib.sha256(salt)
    for file in files:
        if not any(name in file.name for name in BESIDE):
            digest.update(file.name.encode())
            digest.update(_hash_file(file, memory).encode())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 of everything that turns text into tokens: vocabulary, rules, special tokens and chat template."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    passing = ("truncation", "padding")  # side effects of earlier calls
    facts = [{name: rule for name, rule in rules.items() if name not in passing}, tokenizer.special_tokens_map, tokenizer.chat_template]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def rows_fingerprint(rows: Iterable[Iterable[np.ndarray]]) -> str:
    """sha256 of rows of integer or boolean arrays (token ids and masks)."""
    digest = hashlib.sha256()
    for row in rows:
        for array in row:
            digest.update(len(array).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


UNIMPORTANT = frozenset({"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache", "base_model_name_or_path"})
"""Config entries that do not affect what a model computes, or that its tensors already show."""


def describe_adapters(model: Any) -> str:
    """The adapters of a model (rank, scale, targets), as text; empty without any."""
    return " ".join(_facts(config) for config in getattr(model, "peft_config", {}).values())


def _facts(config: Any) -> str:
    facts = {name: value for name, value in config.to_dict().items() if name not in UNIMPORTANT}
    return json.dumps(facts, sort_keys=True, default=lambda value: sorted(value) if isinstance(value, set) else str(value))


def _hash_tensors(model: Any) -> str:
    digest = hashlib.sha256()
    digest.update(f"{_facts(causal_lm(model).config)} {describe_adapters(model)}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _hash_file(file: Path, memory: Path) -> str:
    """Content hash of a file, remembered by path, size and times in a small JSON file; works without it where it cannot be read or written."""
    stat = file.stat()
    stamp = f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    note = memory / "hashes" / (hashlib.sha256(stamp.encode(errors="surrogateescape")).hexdigest() + ".json")
    remembered = _remembered(note, stamp)
    if remembered is not None:
        return remembered
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        replace_file(note, json.dumps({"file": stamp, "sha256": digest}))
    return digest


def _remembered(note: Path, stamp: str) -> str | None:
    """The hash stored for this file, if complete."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        told, digest = found["file"], found["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return digest if told == stamp and isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else None


@functools.cache
def code_fingerprint(*rooms: str) -> str:
    """sha256 of the source of some packages of finegrain: values computed by other code are not reused."""
    digest = hashlib.sha256()
    for room in rooms:
        for file in sorted(resources.files("finegrain").joinpath(room).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                digest.update(f"{room}/{file.name}".encode() + file.read_bytes())
    return digest.hexdigest()


def describe_precision(model: Any) -> str:
    """How the weights under the adapters are stored, as text: dtypes and quantisation."""
    kinds = sorted({str(weight.dtype) for name, weight in model.named_parameters() if "lora_" not in name})
    return f"{' '.join(kinds)} {getattr(causal_lm(model).config, 'quantization_config', None) or ''}"


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
