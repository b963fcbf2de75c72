"""Float32 products on a CPU through oneDNN, or through torch where that is faster.

torch sends float32 products to MKL, which uses narrower instructions on processors that are not Intel's (measured on
one with AVX-512: 105 against 240 GFLOP/s per thread; on another MKL is faster for gradients of weights). Same precision
(IEEE float32, another order of summation). Where oneDNN's operator is missing, for other dtypes, other devices and under
autocast, torch's own product is used.
"""

from collections.abc import Iterable
from functools import cache
from types import MethodType
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear


@cache
def has_onednn() -> bool:
    """Whether oneDNN's float32 product is available and faster: decided by machine and torch version, not by timing."""
    wide = torch.backends.cpu.get_cpu_capability() in ("AVX512", "AVX2")
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return wide and there and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def uses_onednn(tensor: Tensor) -> bool:
    """Whether a product of this tensor goes to oneDNN."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and has_onednn()


class Product(NamedTuple):
    """One of the three products of a linear layer with a weight (outputs, inputs)."""

    kind: Literal["outputs", "gradients of inputs", "gradients of weights"]
    outputs: int
    inputs: int


_BY_TORCH: set[Product] = set()


def prefer_torch(products: Iterable[Product]) -> None:
    """Send these products of this process to torch too; what another model asked for stays."""
    _BY_TORCH.update(products)


def _is_by_torch(left: Tensor, right: Tensor) -> bool:
    """Told by the layout: outputs read rows of both, gradients of inputs columns of the weight, gradients of weights columns of both."""
    if left.stride(1) != 1:
        return Product("gradients of weights", left.shape[0], right.shape[0]) in _BY_TORCH
    if right.stride(1) != 1:
        return Product("gradients of inputs", right.shape[1], right.shape[0]) in _BY_TORCH
    return Product("outputs", right.shape[0], right.shape[1]) in _BY_TORCH


def multiply(left: Float[Tensor, "M K"], right: Float[Tensor, "N K"]) -> Float[Tensor, "M N"]:
    """left @ right.T without autograd; transposed views are as fast as contiguous tensors."""
    if uses_onednn(left) and right.dtype == torch.float32 and left.numel() and right.numel() and not _is_by_torch(left, right):
        return multiply_by_onednn(left, right)
    return left @ right.T


def multiply_by_onednn(left: Float[Tensor, "M K"], right: Float[Tensor, "N K"]) -> Float[Tensor, "M N"]:
    """The same through oneDNN's operator: float32, on a CPU, not empty."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return result


def add_product(total: Float[Tensor, "M N"], left: Float[Tensor, "M K"], right: Float[Tensor, "N K"]) -> None:
    """total += left @ right.T in place, without autograd."""
    if left.dtype == right.dtype == total.dtype and (not uses_onednn(left) or _is_by_torch(left, right)):
        total.addmm_(left, right.T)
    else:
        total += multiply(left, right)


def _multiply_rows(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    flat = multiply(inputs.reshape(-1, inputs.shape[-1]), weight.to(inputs.dtype))
    if bias is not None:
        flat += bias
    return flat.view(*inputs.shape[:-1], weight.shape[0])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _multiply_rows(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        grad_inputs = multiply(flat, weight.to(flat.dtype).T).view_as(inputs) if ctx.needs_input_grad[0] else None
        grad_weight = multiply(flat.T, inputs.reshape(-1, inputs.shape[-1]).T) if ctx.needs_input_grad[1] else None
        grad_bias = flat.sum(0) if ctx.needs_input_grad[2] else None
        return grad_inputs, grad_weight, grad_bias


def _forward(layer: nn.Linear, inputs: Tensor) -> Tensor:
    if not torch.is_grad_enabled() and uses_onednn(inputs):
        return _multiply_rows(inputs, layer.weight, layer.bias)
    narrow = layer.weight.dtype != inputs.dtype and layer.weight.dtype in (torch.bfloat16, torch.float16)
    if narrow and not torch.is_autocast_enabled(inputs.device.type):
        widened: Tensor = _Linear.apply(inputs, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
        return widened
    if not uses_onednn(inputs) or layer.weight.dtype != torch.float32:
        return linear(inputs, layer.weight, layer.bias)
    output: Tensor = _Linear.apply(inputs, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return output


def widen_as_used(layer: nn.Linear) -> None:
    """Makes a layer with a frozen low-precision weight compute in the dtype of its inputs: the graph keeps the low-precision weight."""
    layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]


def use_onednn_linear(model: nn.Module) -> int:
    """Sends the float32 products of a model's linear layers to oneDNN where available; returns the number of layers."""
    if not has_onednn():
        return 0
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]
    return len(layers)
