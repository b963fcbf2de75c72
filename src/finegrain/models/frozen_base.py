"""Frozen weights keep the low-precision dtype of their checkpoint, without changing what is computed.

Every bfloat16 number is a float32 number too, so a product that widens its weight on use gives the same result, bit by bit, as a float32
copy of the weight. The matrices of plain linear layers and plain embeddings, nearly all of a model, keep their dtype; norms,
biases and everything else are widened once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from finegrain.ops.matmul import widen_as_used

PLAIN = (nn.Linear, nn.Embedding)


def keep_narrow(model: nn.Module, master: torch.dtype) -> None:
    """Makes a model that was loaded in its checkpoint's dtype compute in `master`, without converting its large matrices."""
    plain = {id(module.weight) for module in model.modules() if type(module) in PLAIN}
    plain -= {id(own) for module in model.modules() if type(module) not in PLAIN for own in module.parameters(recurse=False)}
    for parameter in model.parameters():
        if id(parameter) not in plain and parameter.is_floating_point():
            parameter.data = parameter.data.to(master)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.dtype in (torch.bfloat16, torch.float16):
                setattr(module, name, buffer.to(master))
        if type(module) is nn.Linear:
            widen_as_used(module)
        elif type(module) is nn.Embedding:
            module.forward = MethodType(_embed_in(master), module)  # type: ignore[method-assign]


def widen_trained(model: nn.Module, master: torch.dtype) -> None:
    """Converts the trainable weights to the master dtype, also on a low-precision base."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(master)


@contextmanager
def widen_temporarily(model: nn.Module, master: torch.dtype = torch.float32) -> Iterator[None]:
    """Temporarily widens the low-precision weights, so that an adapter can be added to them; they are restored afterwards."""
    narrow = [(parameter, parameter.data) for parameter in model.parameters() if parameter.dtype in (torch.bfloat16, torch.float16)]
    for parameter, data in narrow:
        parameter.data = data.to(master)
    try:
        yield
    finally:
        for parameter, data in narrow:
            parameter.data = data


def _embed_in(master: torch.dtype) -> Callable[[nn.Embedding, Tensor], Tensor]:
    def forward(layer: nn.Embedding, ids: Tensor) -> Tensor:
        return embedding(ids, layer.weight, layer.padding_idx).to(master)

    return forward
