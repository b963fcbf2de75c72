"""The module behind a reward head: a linear map without bias from hidden states to K numbers."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from finegrain.errors import ModelError


def linear_head(hidden_size: int, outputs: int, *, seed: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """(H,) -> (K,), drawn from N(0, 1 / (H + 1)^2) by its own seed: scores start near 0, members apart.

    Without bias: a constant cancels in every difference of two means, and in a sum it would be a reward for length.
    """
    head = nn.Linear(hidden_size, outputs, bias=False, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(outputs, hidden_size, generator=generator) / (hidden_size + 1))
    return head


HEAD_FILE = "reward_head.safetensors"
"""The whole head, beside a checkpoint whose stock class holds only a part of it."""


def save_head(head: nn.Module, folder: Path) -> None:
    """All outputs of a head in a file of its own."""
    weight = next(head.parameters()).detach().cpu().contiguous()
    save_file({"weight": weight}, folder / HEAD_FILE)


def load_head(folder: Path) -> nn.Linear:
    """What `save_head` wrote."""
    try:
        weight = load_file(folder / HEAD_FILE)["weight"]
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelError(f"cannot read the reward head {folder / HEAD_FILE}: {error}") from error
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    with torch.no_grad():
        head.weight.copy_(weight)
    return head
