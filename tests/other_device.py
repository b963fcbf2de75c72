"""An emulated accelerator: its tensors compute on the CPU, refuse float64 as MPS does, and never mix with host tensors unseen.

Everything that would make a real device wait for the host is counted by operator: copies to the host, numbers read out, and operators
whose output's shape depends on values.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "emulated"
SHAPED_BY_VALUES = ("aten.nonzero.", "aten.masked_select.", "aten._unique2.", "aten.unique_", "aten.bincount.", "aten.repeat_interleave.Tensor")
READ = ("aten._local_scalar_dense.", "aten.equal.", "aten.is_nonzero.")


class Emulated(torch.Tensor):
    """A tensor of the device; what it holds lies in a CPU tensor."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Emulated":
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=torch.device(NAME, 0)
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(function, args, kwargs or {}, Counter())


def computed(function: Any, args: Any, kwargs: Any, waits: Counter[str]) -> Any:
    name = str(function)
    flat = [part for part in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)]
    wanted = kwargs.get("device")
    copies = name == "aten._to_copy.default" or name == "aten.copy_.default"
    on_device = any(isinstance(part, Emulated) for part in flat)
    if on_device and not copies:
        strangers = [part for part in flat if not isinstance(part, Emulated) and part.ndim]
        indexed = name.startswith(("aten.index.", "aten.index_put", "aten._unsafe_index"))
        if strangers and not indexed:
            raise RuntimeError(f"{name}: tensors on the host and on the device")
    to_host = name == "aten._to_copy.default" and on_device and wanted is not None and torch.device(wanted).type == "cpu"
    to_host = to_host or (name == "aten.copy_.default" and isinstance(args[1], Emulated) and not isinstance(args[0], Emulated))
    boolean = name.startswith("aten.index.") and any(isinstance(p, torch.Tensor) and p.dtype == torch.bool for p in args[1] if p is not None)
    if to_host or (on_device and (boolean or name.startswith(SHAPED_BY_VALUES) or name.startswith(READ))):
        waits[name] += 1
    lands = (on_device and not to_host) or (wanted is not None and torch.device(wanted).type == NAME)
    if wanted is not None and torch.device(wanted).type == NAME:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map(lambda part: part.held if isinstance(part, Emulated) else part, (args, kwargs))
    found = function(*plain_args, **plain_kwargs)

    def wrapped(part: Any) -> Any:
        if not isinstance(part, torch.Tensor) or isinstance(part, Emulated) or not lands:
            return part
        for own in flat:
            if isinstance(own, Emulated) and own.held is part:
                return own
        if part.dtype == torch.float64:
            raise TypeError(f"{name}: the device has no float64")
        return Emulated(part)

    return tree_map(wrapped, found)


class Device(TorchDispatchMode):
    """Inside, factories may name the device; `waits` counts what made it wait for the host."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(function, args, kwargs or {}, self.waits)


@contextmanager
def device() -> Iterator[Device]:
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME)
        getattr(torch, NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]
    with Device() as mode:
        yield mode
