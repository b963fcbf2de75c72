"""Checkpoints of one origin, for tests of merging."""

import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from tests.tiny import save_tiny


def move(model: Any, seed: int, size: float = 0.005) -> Any:
    """A fine-tune of a model: a copy whose parameters have moved a little."""
    generator = torch.Generator().manual_seed(seed)
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        for weight in tuned.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator).to(weight.dtype))
    return tuned


def save_family(folder: Path, count: int = 3, *, dtype: torch.dtype = torch.float32, model: Any = None, **size: Any) -> list[Path]:
    """A base and its fine-tunes, as `save_pretrained` writes them, with one tokenizer."""
    base = save_tiny(folder / "base", model, **size)
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    loaded.save_pretrained(base)
    found = [base]
    for seed in range(1, count):
        tuned = folder / f"tuned-{seed}"
        shutil.copytree(base, tuned)
        move(loaded, seed).save_pretrained(tuned)
        found.append(tuned)
    return found


def reshard(source: Path, target: Path, size: str = "10KB") -> Path:
    """The same checkpoint in several files."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(target, max_shard_size=size)
    assert len(list(target.glob("*.safetensors"))) > 2
    return target


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by name."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            found |= {name: tensors.get_tensor(name) for name in tensors.keys()}
    return found


def same_weights(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same tensors, bit by bit."""
    first, second = stored(one), stored(other)
    bits = lambda tensor: (tensor.dtype, tensor.contiguous().reshape(-1).view(torch.uint8).tolist())
    return first.keys() == second.keys() and all(bits(first[name]) == bits(second[name]) for name in first)
