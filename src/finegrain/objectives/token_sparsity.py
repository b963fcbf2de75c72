"""DPO under learned token masks in [0, 1] with an L1 penalty: tokens that both answers share drop out, and those that contrast them remain.

Source: Yuan et al. 2024, https://arxiv.org/abs/2410.13828, the second of two proposed remedies (no code of theirs; formula reconstructed).
Deviations: the mask is a sigmoid of a small network on the reference's hidden states before the token, as SparsePO's (arXiv:2410.05102) has
them, and begins near 1 [choice]; the default L1 weight is ours [choice]. Token credit multiplies the mask, its L1 norm included [choice].
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.ops.sequence import kept_weight, log_ratio, to_wide, token_weight
from finegrain.types import Pair, Side, Term, Terms

START = 2.0
"""Bias of the mask's logit: sigma(2) = 0.88."""


class MaskReader(nn.Module):
    """A number per token and block of the reference, added up with learned weights: the logit of the mask."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(nn.Linear(width, 1) for _ in range(blocks))
        self.sum = nn.Linear(blocks, 1)
        nn.init.constant_(self.sum.bias, START)

    def read_block(self, number: int, states: Float[Tensor, "M H"]) -> Float[Tensor, "M 1"]:
        """What is kept of one block."""
        kept: Tensor = self.blocks[number](self.norm(states))
        return kept

    def forward(self, read: Sequence[Tensor]) -> Float[Tensor, "M 1"]:
        """The logit, of what was kept of all blocks."""
        logit: Tensor = self.sum(torch.cat(list(read), -1))
        return logit


def masked_side(side: Side) -> Side:
    """The side under its mask, which multiplies its token weights."""
    assert side.reading is not None, "the mask is read from the reference's hidden states"
    logit = torch.where(side.mask, to_wide(side.reading[..., 0]), 0.0)
    return replace(side, weight=token_weight(side) * torch.sigmoid(logit))


@dataclass(frozen=True, kw_only=True)
@checked
class TokenSparsity:
    """Hyper-parameters of DPO under sparse token masks."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    reading: ClassVar[int] = 1
    learning_rate: ClassVar[float] = 1e-6
    """That of dpo, whose loss it is where every mask is 1."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    sparsity: NonNegativeFloat = 1e-3
    """What a token's mask costs, in units of the loss of a pair; larger values leave fewer tokens."""

    def make_reader(self, blocks: int, width: int, generator: torch.Generator) -> MaskReader:
        """The network of the masks, drawn by the generator's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            return MaskReader(blocks, width)

    def __call__(self, pair: Pair) -> Terms:
        """The preference and the masks' L1 norm in both answers, means over pairs."""
        chosen, rejected = masked_side(pair.chosen), masked_side(pair.rejected)
        preference = dpo_loss(log_ratio(chosen) - log_ratio(rejected), beta=self.beta)
        ones = torch.ones_like(preference)
        return {"preference": Term(preference, ones), "size": Term(kept_weight(chosen) + kept_weight(rejected), ones, self.sparsity)}
