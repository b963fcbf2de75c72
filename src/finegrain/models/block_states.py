"""Hidden states of every block of a model at some positions, handed to a module block by block while the pass runs.

Nothing keeps them for all positions or all blocks: what remains is what the module makes of them, and what its own gradient needs. As in
transformers' `hidden_states` without the embeddings: block number k has gone through k + 1 layers, and the last one through the final norm too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from finegrain.errors import ModelError
from finegrain.ops.block_reader import BlockReader


def blocks_of(base: nn.Module, count: int) -> nn.ModuleList:
    """The list of a model's blocks; raises ModelError where it has none of that length."""
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(f"{type(base).__name__} has no list of {count} blocks, whose hidden states the objective reads; take another model")


def read_blocks(base: Any, count: int, select: Callable[[Tensor], Tensor], reader: BlockReader, run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """(last hidden states of `run`, the reader's (M, K) outputs); `run` calls the frozen model `base`, `select` takes (M, H) of (1, N, H)."""
    read: list[Tensor] = []
    learns = torch.is_grad_enabled()

    def keep(states: Tensor) -> None:
        with torch.set_grad_enabled(learns), torch.autocast(states.device.type, enabled=False):
            weight = next(reader.parameters())
            read.append(reader.read_block(len(read), select(states).detach().to(weight.dtype)))

    hooks = [
        block.register_forward_hook(lambda module, given, output: keep(output if isinstance(output, Tensor) else output[0]))
        for block in blocks_of(base, count)[:-1]
    ]
    try:
        with torch.no_grad():
            last = run()
    finally:
        for hook in hooks:
            hook.remove()
    keep(last)
    with torch.autocast(last.device.type, enabled=False):
        outputs: Tensor = reader(read)
    return last, outputs
