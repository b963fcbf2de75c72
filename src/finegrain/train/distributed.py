"""The few collectives the loop needs, the same for one and for many processes."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        dist.barrier()


def broadcast_names(names: Iterable[str], device: torch.device) -> list[str]:
    """The first rank's names, sorted: it always has rows, another rank may have none and so not know them."""
    own = sorted(names)
    if world() == 1:
        return own
    text = torch.frombuffer(bytearray(json.dumps(own).encode()), dtype=torch.uint8).to(device)
    length = torch.tensor([len(text)], device=device)
    dist.broadcast(length, 0)
    if rank() != 0:
        text = torch.zeros(int(length), dtype=torch.uint8, device=device)
    dist.broadcast(text, 0)
    names_of_first: list[str] = json.loads(bytes(text.tolist()))
    return names_of_first


def with_shapes(values: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tensors, and on a rank that has none of them zeros of the names, shapes and dtypes that they have on the first rank."""
    if world() == 1:
        return dict(values)
    described = {json.dumps([name, list(value.shape), str(value.dtype).removeprefix("torch.")]): value for name, value in values.items()}
    found = {}
    for text in broadcast_names(described, device):
        name, shape, dtype = json.loads(text)
        found[name] = described.get(text, torch.zeros(shape, dtype=getattr(torch, dtype), device=device))
    return found


def sum_named(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Sums over ranks of named numbers, in float64."""
    names = broadcast_names(values, device)
    own = torch.tensor([values.get(name, 0.0) for name in names], dtype=torch.float64)
    return dict(zip(names, _sum_on_host(own, device).tolist(), strict=True))


def sum_wide(values: Tensor) -> Tensor:
    """Sum over ranks, taken in float64 whatever the dtype of the tensor, which it keeps."""
    return values if world() == 1 else _sum_on_host(values.cpu().double(), values.device).to(values.device, values.dtype)


def _sum_on_host(own: Tensor, device: torch.device) -> Tensor:
    """Sum over ranks, in their order, of a float64 tensor in the host's memory; it travels as bytes, for not every device has float64."""
    if world() == 1:
        return own
    sent = torch.from_numpy(np.frombuffer(bytearray(own.numpy().tobytes()), dtype=np.uint8)).to(device)
    parts = [torch.empty_like(sent) for _ in range(world())]
    dist.all_gather(parts, sent)
    return torch.from_numpy(torch.stack(parts).cpu().numpy().view(np.float64).sum(0)).view(own.shape)


def sum_tensor(values: Tensor) -> Tensor:
    """Sum over ranks, out of place."""
    if world() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def from_first(value: float, device: torch.device) -> float:
    """The first rank's number on every rank."""
    return sum_named({"value": value if rank() == 0 else 0.0}, device)["value"] if world() > 1 else value


def array_from_first(values: np.ndarray, device: torch.device) -> np.ndarray:
    """The first rank's numbers on every rank, bit for bit; all have the same shape and dtype."""
    if world() == 1:
        return values
    sent = torch.from_numpy(np.frombuffer(bytearray(np.ascontiguousarray(values).tobytes()), dtype=np.uint8)).to(device)
    dist.broadcast(sent, 0)
    return sent.cpu().numpy().view(values.dtype).reshape(values.shape)


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether any rank says so: a decision that all must take together."""
    return flag if world() == 1 else bool(sum_tensor(torch.tensor(float(flag), device=device)))


def gather_by_position(values: Tensor, positions: Sequence[int], count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(count, ...) tensor in which every rank has put its values at its positions; it travels in `dtype`, for a rank may have no values to ask."""
    whole = torch.zeros(count, *values.shape[1:], dtype=dtype, device=values.device)
    whole[torch.tensor(positions, dtype=torch.long, device=values.device)] = values.to(dtype)
    return sum_tensor(whole).to(values.dtype)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """One all-reduce of summed gradients; a rank without a micro-batch contributes zeros."""
    held = list(parameters)
    for parameter in held:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if world() == 1 or not held:
        return
    flat = torch.cat([parameter.grad.flatten() for parameter in held if parameter.grad is not None])
    dist.all_reduce(flat)
    start = 0
    for parameter in held:
        assert parameter.grad is not None
        parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()
