"""The network behind a learned token mask: a number per token of a frozen model's hidden states, read block by block.

Each block's state goes through a layer norm that all blocks share and is mapped to a number; a mixture of the blocks' numbers is the mask
before its activation. The engine calls `read_block` with the states of scored tokens while the reference's pass runs.

Source: Christopoulou et al. 2024 (SparsePO), https://arxiv.org/abs/2410.05102; the authors' `mask_models.py`.
Deviations: biases start at 1 and the mixture as the mean, so that masks start near 1 and not dead [choice]; a network of the last block
alone has the layer norm too [choice]; masks are dropped before their activation, which for the ReLU is the same as after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from finegrain.checked import NonNegativeFloat, PositiveInt, ShareBelowOne, checked
from finegrain.ops.block_reader import BlockReader
from finegrain.types import Json


class MaskNetwork(nn.Module):
    """A mask of every block, or of the last one alone; `hidden`: units between a block's state and its number, 0 for none."""

    def __init__(self, blocks: int, width: int, generator: torch.Generator, *, last: bool, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.first = dropout, blocks - 1 if last else 0
        self.norm = nn.LayerNorm(width)
        own = range(blocks - self.first)
        self.inner = nn.ModuleList(_drawn_linear(width, hidden, generator, bias=0.0) for _ in own) if hidden else None
        self.outer = nn.ModuleList(_drawn_linear(hidden or width, 1, generator, bias=1.0) for _ in own)
        self.mixer = None if last else _mean_linear(blocks)

    def read_normed(self, number: int, normed: Float[Tensor, "M H"]) -> Float[Tensor, "M 1"]:
        """The block's number per token, of states with mean 0 and variance 1."""
        place = number - self.first
        if self.inner is None:
            found = self._after_norm(normed, self.outer[place])
        else:
            found = self.outer[place](self._drop(self._after_norm(normed, self.inner[place])))
        return found if self.mixer is None else self._drop(functional.relu(found))

    def forward(self, read: Sequence[Float[Tensor, "M 1"]]) -> Float[Tensor, "M 1"]:
        """The mask before its activation."""
        return self._drop(read[0] if self.mixer is None else self.mixer(torch.cat(list(read), -1)))

    def _after_norm(self, normed: Tensor, layer: nn.Module) -> Tensor:
        """layer(gain * normed + offset), with gain and offset taken into the layer: no second copy of the states is kept for the gradient."""
        assert isinstance(layer, nn.Linear)
        return functional.linear(normed, layer.weight * self.norm.weight, layer.weight @ self.norm.bias + layer.bias)

    def _drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.dropout, self.training)


class MaskReader(BlockReader):
    """One network or two on the same states.

    Of each block that it reads one copy of the scored tokens' states (M, H) stays until the backward pass: the gradient of the weights needs it.
    """

    def __init__(self, networks: Sequence[MaskNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def read_block(self, number: int, states: Float[Tensor, "M H"]) -> Float[Tensor, "M N"]:
        """The networks' numbers side by side; none of a block that they do not read."""
        networks = self._listed()
        if number < networks[0].first:
            return states.new_zeros(len(states), 0)
        normed = functional.layer_norm(states, states.shape[-1:], eps=networks[0].norm.eps)
        return torch.cat([network.read_normed(number, normed) for network in networks], -1)

    def forward(self, read: Sequence[Tensor]) -> Float[Tensor, "M K"]:
        """The networks' masks before their activation."""
        networks = self._listed()
        numbers = [block.chunk(len(networks), -1) for block in read[networks[0].first :]]
        return torch.cat([network([own[place] for own in numbers]) for place, network in enumerate(networks)], -1)

    def _listed(self) -> list[MaskNetwork]:
        return [network for network in self.networks if isinstance(network, MaskNetwork)]


def _drawn_linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: float) -> nn.Linear:
    """A linear map with the usual uniform weights, drawn by this generator."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        layer.weight.copy_((2 * torch.rand(outputs, inputs, generator=generator) - 1) / inputs**0.5)
        layer.bias.fill_(bias)
    return layer


def _mean_linear(inputs: int) -> nn.Linear:
    """A linear map without bias that starts as the mean."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, 1, bias=False)  # type: ignore[no-untyped-call]
    nn.init.constant_(layer.weight, 1 / inputs)
    return layer


@dataclass(frozen=True, kw_only=True)
@checked
class SimpleAll:
    """A linear map of every block, and their mixture: the authors' `simple_all`."""

    last: ClassVar[bool] = False

    dropout: ShareBelowOne = 0.01
    """Share of the blocks' numbers, and of the masks, that is dropped in training."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled decay of all its parameters. Masks and beta are not identifiable apart; this is what bounds the masks."""

    def build(self, count: int, blocks: int, width: int, generator: torch.Generator) -> MaskReader:
        """So many networks, for a model of these blocks and this width."""
        settings: Json = {"last": self.last, "hidden": self._units, "dropout": self.dropout}
        return MaskReader([MaskNetwork(blocks, width, generator, **settings) for _ in range(count)])

    @property
    def _units(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
@checked
class SimpleLast(SimpleAll):
    """A linear map of the last block: the authors' `simple_last`."""

    last: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
@checked
class TwoLayerAll(SimpleAll):
    """Two linear maps of every block, and their mixture: the authors' `ml_all`."""

    hidden: PositiveInt = 200
    """Units between the two."""

    @property
    def _units(self) -> int:
        return self.hidden


@dataclass(frozen=True, kw_only=True)
@checked
class TwoLayerLast(TwoLayerAll):
    """Two linear maps of the last block: the authors' `ml_last`."""

    last: ClassVar[bool] = True
