"""Where models go and how they compute there."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator

from finegrain.errors import UsageError
from finegrain.files import cache_folder
from finegrain.models.products import compare_bfloat16
from finegrain.models.score import Precision
from finegrain.terminal import write_line
from finegrain.train.distributed import rank

MICRO_TOKENS, MOST_MICRO_TOKENS = 2048, 32768
"""Tokens of a forward pass: whatever the device, and at most."""

CPU_MICRO_TOKENS, CPU_ACTIVATIONS = 4096, 512 * 2**20
"""The most on a CPU, where twice as many gained 4 % for 6 % more memory, and the bytes that their activations may fill [choice]."""

ACTIVATION_BYTES = 4 * 24
"""Kept for the backward, per token, layer and unit of width: some 24 float32 numbers [choice]."""

SLOWER = 1.2
"""How many times as long bfloat16 must take on a CPU for float32 to be taken in its place [choice]."""


def open_device(place: str, dtype: str, micro_tokens: int | None = None) -> tuple[Accelerator, torch.device, Precision]:
    """The accelerator, where models go, and how they compute."""
    if place == "cpu":
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    accelerator = Accelerator(cpu=place == "cpu", mixed_precision="no")
    device = accelerator.device if place in ("auto", "cpu") else _device(place)
    name = _arithmetic_name(dtype, device)
    return accelerator, device, Precision(_autocast(name, device), name, micro_tokens or MICRO_TOKENS)


def frozen_arithmetic(device: str, dtype: str) -> tuple[torch.device, Precision]:
    """Where a model that only scores goes and how it computes, without an accelerator: a trainer's process may have one of its own."""
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    place = _device(best if device == "auto" else device)
    name = _arithmetic_name(dtype, place)
    return place, Precision(_autocast(name, place), name, MICRO_TOKENS)


def micro_tokens_of(device: torch.device, config: Any) -> int:
    """Tokens of a forward pass whose activations fill about a quarter of a GPU's memory, or a small part of a computer's."""
    room, most = _room(device)
    each = ACTIVATION_BYTES * int(config.hidden_size) * int(config.num_hidden_layers)
    return max(MICRO_TOKENS, min(room // each, most))


def _room(device: torch.device) -> tuple[int, int]:
    """Bytes for activations, and the most tokens."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory) // 4, MOST_MICRO_TOKENS
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) // 4, MOST_MICRO_TOKENS
    return CPU_ACTIVATIONS, CPU_MICRO_TOKENS


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch says "not compiled with CUDA" by an assertion
        raise UsageError(f"--device {name} is not there: {str(error).splitlines()[0]}") from error


def _arithmetic_name(dtype: str, device: torch.device) -> str:
    """The dtype that is computed in: float32 in place of bfloat16 on a processor where that is slower, in one line on the terminal."""
    if dtype == "bfloat16" and device.type == "cpu" and (factor := compare_bfloat16(cache_folder())) > SLOWER:
        if rank() == 0:
            write_line(f"bfloat16 products take {factor:.1f} times as long as float32 on this processor: computing in float32")
        return "float32"
    return dtype if dtype != "auto" else ("float32" if device.type in ("cpu", "mps") else "bfloat16")


def _autocast(name: str, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    if name == "bfloat16":
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return lambda: nullcontext()
