"""Sharded training (FSDP2): weights, gradients and moments are split over the processes, gathered layer by layer for a pass.

A pass of a sharded model is collective, so every process makes as many as the one with the most micro-batches; those it
lacks are empty. Gradients are summed, as in replicated training, but after every micro-batch: until then they are whole.
There is no checkpoint to resume from: a sharded run trains and exports.
"""

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from finegrain.models.packing import Branch, Group
from finegrain.models.scorer import Scorer, causal_lm
from finegrain.train.batches import Step
from finegrain.train.collate import Batch
from finegrain.train.distributed import rank, world

EMPTY = Group(np.zeros(1, dtype=np.int32), (Branch(np.zeros(1, dtype=np.int32), np.ones(1, dtype=bool)),))
"""What a process without a micro-batch computes beside the others; its loss is multiplied by 0."""


def shard(scorer: Scorer) -> None:
    """Split the parameters over all processes: a group for every block of the model, one for the rest."""
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)
    mesh = init_device_mesh(scorer.device.type, (world(),))
    blocks = set(getattr(causal_lm(scorer.model), "_no_split_modules", None) or ())
    for module in list(scorer.model.modules()):
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh)
    fully_shard(scorer, mesh=mesh)
    for module in (module for module in scorer.modules() if isinstance(module, FSDPModule)):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sums


def empty_copy(model: Any) -> Any:
    """A copy of a model whose parameters take no memory: made before it is sharded, its parameters loaded when it has been trained."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo)


def load_full_parameters(shell: Any, scorer: Scorer) -> Scorer:
    """The scorer whole again, in the empty copy, on every process."""
    shell.load_state_dict(gathered(scorer.model), strict=False, assign=True)
    causal_lm(shell).tie_weights()
    assert not any(parameter.is_meta for parameter in shell.parameters())
    return Scorer(shell, scorer.path)


def gathered(model: nn.Module) -> dict[str, Tensor]:
    """Whole parameters by name."""
    return {name: _whole(parameter.detach()) for name, parameter in model.named_parameters()}


def pad_micro_batches(scorer: Scorer, step: Step, batches: Sequence[Batch]) -> Iterator[Batch]:
    """This process's micro-batches; a sharded scorer passes over empty ones until every process has made as many."""
    if not isinstance(scorer, FSDPModule):
        yield from batches
        return
    most = max(len(share) for share in step.micro)
    assert len(batches) == len(step.micro[rank()])
    for number in range(most):
        if number < len(batches):
            yield batches[number]
            continue
        nothing = 0.0 * scorer([EMPTY]).logp.sum()
        if torch.is_grad_enabled():
            nothing.backward()


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> float:
    """Scale gradients down to a norm over all parameters, sharded ones included; returns the norm before."""
    kinds = [[p for p in parameters if isinstance(p.grad, DTensor) is sharded] for sharded in (False, True)]
    norms = [_whole(torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])) for kind in kinds if kind]
    norm = norms[0] if len(norms) == 1 else torch.stack([part.to(norms[0].device) for part in norms]).norm()
    for kind in kinds:
        if kind:
            torch.nn.utils.clip_grads_with_norm_(kind, largest, norm)
    return float(norm)


def replicated(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Parameters that every process holds whole, so that their gradients are still to be summed."""
    return [parameter for parameter in parameters if not isinstance(parameter, DTensor)]


def _whole(tensor: Tensor) -> Tensor:
    whole: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole
