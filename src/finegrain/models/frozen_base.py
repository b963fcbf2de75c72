"""Weights that do not train stay as narrow as their checkpoint has them, and what is computed does not change.

Every bfloat16 number is a float32 number too, so a product that widens its weight as it is used gives what a float32 copy of the weight
would give, bit by bit. The matrices of plain linear layers and plain embeddings stay narrow, which are nearly all of a model; norms,
biases and whatever else there is are widened once.
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
    """Make a model that was loaded in its checkpoint's dtype compute in `master`, its large matrices as they are."""
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
    """What trains is a master, on a narrow base too."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(master)


@contextmanager
def widened(model: nn.Module, master: torch.dtype = torch.float32) -> Iterator[None]:
    """Inside, the narrow weights are wide, so that an adapter can be added to them; afterwards they are what they were."""
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
