"""The module behind a reward head: a linear map without bias from hidden states to K numbers, or the head's own module."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from finegrain import catalog
from finegrain.configure import from_json
from finegrain.errors import ModelError
from finegrain.models.permissions import allow_readers
from finegrain.rewards.declarations import read_head


def linear_head(hidden_size: int, outputs: int, *, seed: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """(H,) -> (K,), drawn from N(0, 1 / (H + 1)^2) with a separate seed: scores start near 0, and members differ.

    Without bias: a constant cancels in every difference of two means, and in a sum it would reward length.
    """
    head = nn.Linear(hidden_size, outputs, bias=False, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(outputs, hidden_size, generator=generator) / (hidden_size + 1))
    return head


def head_module(
    make: Callable[[int, torch.Generator], nn.Module] | None, hidden_size: int, outputs: int, *, seed: int, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The module that a head's `module` makes, drawn with a separate seed; without one, the linear map."""
    if make is None:
        return linear_head(hidden_size, outputs, seed=seed, dtype=dtype)
    return make(hidden_size, torch.Generator().manual_seed(seed)).to(dtype)


def stock_rows(head: nn.Module) -> torch.Tensor:
    """(K, H): the weight of a linear head, or of the `linear_proxy` that another head trains beside it."""
    layer = head if isinstance(head, nn.Linear) else dict(head.named_children()).get("linear_proxy")
    if not isinstance(layer, nn.Linear):
        raise ModelError(f"{type(head).__name__} is not linear and has no linear_proxy, so it cannot be saved as a stock classifier")
    return layer.weight.detach()


HEAD_FILE = "reward_head.safetensors"
"""The file of the whole head, beside a checkpoint whose stock class holds only a part of it."""


def save_head(head: nn.Module, folder: Path) -> None:
    """Saves all weights of a head in a separate file."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}, folder / HEAD_FILE)
    allow_readers(folder / HEAD_FILE)


def load_head(folder: Path, facts: Mapping[str, Any] | None = None) -> nn.Module:
    """Reads what `save_head` wrote; `facts` names the head where it is not linear."""
    try:
        state = load_file(folder / HEAD_FILE)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read the reward head {folder / HEAD_FILE}: {error}") from error
    if set(state) == {"weight"}:
        weight = state["weight"]
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight)
        return linear
    settings = head_settings(facts or {})
    make = None if settings is None else read_head(settings).module
    rows = next((state[name] for name in ("weight", "linear_proxy.weight") if name in state), None)
    if make is None or rows is None:
        raise ModelError(f"{folder / HEAD_FILE} holds {', '.join(sorted(state)[:4])}, but reward_head.json names no head with these weights")
    head = make(rows.shape[1], torch.Generator())
    try:
        head.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{folder / HEAD_FILE} does not fit the head named in reward_head.json: {error}") from error
    return head.eval()


def head_settings(facts: Mapping[str, Any]) -> Any:
    """The head's settings from `reward_head.json`; None where it names no head of the catalog."""
    stored = facts.get("head")
    if not isinstance(stored, Mapping) or "method" not in stored:
        return None
    settings = catalog.load("head", stored["method"])
    return from_json(settings, {name: value for name, value in stored.items() if name != "method"}, "reward_head.json")
