"""What reads a frozen model's hidden states block by block, in the form in which methods make it and the engine calls it."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class BlockReader(nn.Module):
    """A trained module that reads a frozen model's hidden states; `models.block_states` calls it while the model's pass runs."""

    def read_block(self, number: int, states: Float[Tensor, "M H"]) -> Float[Tensor, "M ..."]:
        """What is kept of one block, e.g. one number per token."""
        raise NotImplementedError

    def forward(self, read: Sequence[Tensor]) -> Float[Tensor, "M K"]:
        """The K numbers per token, of what was kept of all blocks."""
        raise NotImplementedError
