"""An emulated accelerator: tensors that compute on the CPU but mix with the host's no more than a GPU's do, and refuse float64 as MPS does.

Everything that would make a real device wait for the host is counted by operator: copies to the host, numbers that are read out, and
operators whose output's shape depends on values.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from finegrain.ops import precision

NAME = "emulated"
READ_OUT = tuple(f"aten.{name}." for name in ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "bincount"))
waits: Counter[str] = Counter()
"""How often the device would have waited for the host since the last `device()`, by operator."""


class Emulated(torch.Tensor):
    """A tensor of the device; what it holds lies in a CPU tensor."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Emulated":
        strides, offset = held.stride(), held.storage_offset()
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=strides, storage_offset=offset, dtype=held.dtype, device=torch.device(NAME, 0)
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(function, args, kwargs or {})


class Factories(TorchDispatchMode):
    """Functions that make tensors may name the device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(function, args, kwargs or {})


class Constructors(TorchFunctionMode):
    """`torch.tensor` copies to its device, and `tolist` from there, below any dispatch mode."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return function(*args, **{**kwargs, "device": None}).to(kwargs["device"])
        if function is torch.Tensor.tolist and isinstance(args[0], Emulated):
            return args[0].cpu().tolist()
        return function(*args, **kwargs)


def compute(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What the operator makes, on the device where its tensors or its arguments say so."""
    name = str(function)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    own = [tensor for tensor in tensors if isinstance(tensor, Emulated)]
    named = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    _check_mixture(name, tensors, own)
    down = bool(own) and (named == "cpu" or (name == "aten.copy_.default" and not isinstance(args[0], Emulated)))
    if down or (own and (name.startswith(READ_OUT) or _selects_by_mask(name, args))):
        waits[name] += 1
    if named == NAME:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if named == NAME and kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    plain_args, plain_kwargs = tree_map(lambda leaf: leaf.held if isinstance(leaf, Emulated) else leaf, (args, kwargs))
    found = function(*plain_args, **plain_kwargs)
    if down or (not own and named != NAME):
        return found
    wrapped = {id(tensor.held): tensor for tensor in own}  # in-place operators give back what they were given

    def placed(leaf: Any) -> Any:
        return leaf if not isinstance(leaf, torch.Tensor) else wrapped[id(leaf)] if id(leaf) in wrapped else _moved(name, leaf)

    return tree_map(placed, found)


def _check_mixture(name: str, tensors: list[torch.Tensor], own: list[Emulated]) -> None:
    free = name.startswith(("aten.copy_.", "aten._to_copy.", "aten.index.", "aten.index_put", "aten._index_put", "aten._unsafe_index"))
    if own and not free and any(tensor.ndim and not isinstance(tensor, Emulated) for tensor in tensors):
        raise RuntimeError(f"{name} of tensors on the host and on the device")


def _selects_by_mask(name: str, args: Any) -> bool:
    return name.startswith(("aten.index.", "aten.index_put")) and any(index is not None and index.dtype == torch.bool for index in args[1])


def _moved(name: str, held: torch.Tensor) -> Emulated:
    if held.dtype == torch.float64:
        raise TypeError(f"{name}: the device has no float64")
    return Emulated(held)


@contextmanager
def device() -> Iterator[str]:
    """The device's name; inside, tensors can be made there."""
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME)
        getattr(torch, NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]
    waits.clear()
    precision.WITHOUT_FLOAT64.add(NAME)
    try:
        with Factories(), Constructors():
            yield NAME
    finally:
        precision.WITHOUT_FLOAT64.discard(NAME)
