"""DPO under learned token masks in [0, 1] with an L1 penalty: tokens that both answers share drop out, and those that contrast them remain.

Source: Yuan et al. 2024, https://arxiv.org/abs/2410.13828, the second of two proposed remedies (no code of theirs; formula reconstructed).
Deviations: the mask is a sigmoid of SparsePO's network of the last block (`mask_network`; that of all blocks is not below 0) before the token,
and begins near 1 [choice]; the default L1 weight is ours [choice]. Token credit multiplies the mask, its L1 norm included [choice].
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.mask_network import MaskReader, SimpleLast, TwoLayerLast
from finegrain.ops.sequence import kept_weight, log_ratio, to_wide, token_weight
from finegrain.types import Pair, Side, Term, Terms

STEEPNESS = 2.0
"""Logit of a mask where the network says 1, with which it begins: sigma(2) = 0.88."""


def masked_side(side: Side) -> Side:
    """The side under its mask, which multiplies its token weights."""
    assert side.reading is not None, "the mask is read from the reference's hidden states"
    said = torch.where(side.mask, to_wide(side.reading[..., 0]), 0.0)
    return replace(side, weight=token_weight(side) * torch.sigmoid(STEEPNESS * said))


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
    network: SimpleLast | TwoLayerLast = field(default_factory=SimpleLast)
    """What makes the mask of the reference's last hidden states."""

    @property
    def module_decay(self) -> float:
        """That of the network."""
        return self.network.weight_decay

    def make_reader(self, blocks: int, width: int, generator: torch.Generator) -> MaskReader:
        """The network of the masks."""
        return self.network.build(1, blocks, width, generator)

    def __call__(self, pair: Pair) -> Terms:
        """The preference and the masks' L1 norm in both answers, means over pairs."""
        chosen, rejected = masked_side(pair.chosen), masked_side(pair.rejected)
        preference = dpo_loss(log_ratio(chosen) - log_ratio(rejected), beta=self.beta)
        ones = torch.ones_like(preference)
        return {"preference": Term(preference, ones), "size": Term(kept_weight(chosen) + kept_weight(rejected), ones, self.sparsity)}
