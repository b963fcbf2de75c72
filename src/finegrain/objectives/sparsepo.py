"""SparsePO: token-level DPO under two learned masks, of which tokens carry the reward and of which positions stay tied to the reference.

Source: Christopoulou et al. 2024, https://arxiv.org/abs/2410.05102; the authors' `sparse_trainer.py` and `mask_models.py`.
Deviations: those of `finegrain.objectives.mask_network`. Masks that are rescaled to [0, 1] are exact (the authors' extremes are in float16),
and 1 where an answer's are all equal; random masks are drawn by row, place and seed (theirs have no seed) [choice]. Token credit
multiplies both masks, their L1 norm included [choice].
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import relu

from finegrain.checked import NonNegativeFloat, PositiveFloat, Seed, checked
from finegrain.errors import UsageError
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.mask_network import SimpleAll, SimpleLast, TwoLayerAll, TwoLayerLast
from finegrain.objectives.token_kl import margin_measures, masked_score, whole_kl
from finegrain.ops.draws import hash_to_uniform
from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import to_wide, token_weight
from finegrain.types import Pair, Side, Term, Terms

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]


@dataclass(frozen=True, kw_only=True)
class Relu:
    """Masks of 0 and above."""

    def __call__(self, values: Values, mask: Mask) -> Values:
        """The positive part."""
        return relu(values)


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """Shifted and scaled to [0, 1] over each answer; 1 for an answer whose values are all equal: the authors' `resc` and `znorm`."""

    def __call__(self, values: Values, mask: Mask) -> Values:
        """From the answer's smallest value, 0, to its largest, 1."""
        low = torch.where(mask, values, torch.inf).amin(-1, keepdim=True)
        high = torch.where(mask, values, -torch.inf).amax(-1, keepdim=True)
        varies = high > low
        low, span = torch.where(varies, low, 0.0), torch.where(varies, high - low, 1.0)
        return torch.where(varies, (values - low) / span, 1.0)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """No activation: masks may be negative."""

    def __call__(self, values: Values, mask: Mask) -> Values:
        """The values."""
        return values


@dataclass(frozen=True, kw_only=True)
class Binary:
    """1 where the value is above 0, else 0: no gradient, so the network never trains [an ablation]."""

    def __call__(self, values: Values, mask: Mask) -> Values:
        """0 or 1."""
        return (values > 0).to(values.dtype)


Activation = Relu | MinMax | Identity | Binary


@dataclass(frozen=True, kw_only=True)
@checked
class RandomMask:
    """Uniform draws in (0, 1) by row and place, in place of a network [an ablation]."""

    seed: Seed = 0
    """Of the draws, which are the same in every epoch."""

    @property
    def weight_decay(self) -> float:
        """Nothing trains."""
        return 0.0

    def draw(self, rows: Float[Tensor, " B"], mask: Mask, stream: int) -> Values:
        """Draws for the tokens of some rows; another stream has others."""
        start = hash_to_uniform(torch.full_like(rows, self.seed).long()).mul(2**31).long()
        own = hash_to_uniform(rows.long() + start).mul(2**31).long()
        return hash_to_uniform(own[:, None] + mask.cumsum(-1) * 8 + stream)


Network = SimpleAll | SimpleLast | TwoLayerAll | TwoLayerLast | RandomMask


@dataclass(frozen=True, kw_only=True)
class Common:
    """One mask for rewards and KL."""

    count: ClassVar[int] = 1

    def __call__(self, masks: tuple[Values, ...]) -> tuple[Values, Values]:
        """The same tensor twice."""
        return masks[0], masks[0]


@dataclass(frozen=True, kw_only=True)
class Independent:
    """A mask of rewards and a mask of KL, each of a network of its own."""

    count: ClassVar[int] = 2

    def __call__(self, masks: tuple[Values, ...]) -> tuple[Values, Values]:
        """As they are."""
        return masks[0], masks[1]


@dataclass(frozen=True, kw_only=True)
class RewardOnly:
    """A mask of rewards; every position's KL counts."""

    count: ClassVar[int] = 1

    def __call__(self, masks: tuple[Values, ...]) -> tuple[Values, Values]:
        """The mask, and ones."""
        return masks[0], torch.ones_like(masks[0])


@dataclass(frozen=True, kw_only=True)
class KlOnly:
    """A mask of KL; every token's reward counts."""

    count: ClassVar[int] = 1

    def __call__(self, masks: tuple[Values, ...]) -> tuple[Values, Values]:
        """Ones, and the mask."""
        return torch.ones_like(masks[0]), masks[0]


Masks = Common | Independent | RewardOnly | KlOnly


def activate(reading: Float[Tensor, "B T K"], mask: Mask, activation: Activation) -> tuple[Values, ...]:
    """The masks that a network's numbers are, float32 or wider, 0 outside the answers."""
    found = [torch.where(mask, to_wide(values), 0.0) for values in reading.unbind(-1)]
    return tuple(torch.where(mask, activation(values, mask), 0.0) for values in found)


@dataclass(frozen=True, kw_only=True)
@checked
class SparsePO:
    """Hyper-parameters of SparsePO."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference", "reference_kl"})
    learning_rate: ClassVar[float] = 5e-7
    """The authors' for Anthropic HH; they used 1e-6 for IMDb."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength; it multiplies log-ratios and KL alike."""
    masks: Masks = field(default_factory=Common)
    """What is masked by what."""
    network: Network = field(default_factory=SimpleAll)
    """What makes the numbers behind a mask."""
    activation: Activation = field(default_factory=Relu)
    """What makes a mask of them."""
    l1_reward: NonNegativeFloat = 0.0
    """Weight of the L1 norm of the mask of rewards; the authors have 1e-3 for HH."""
    l1_kl: NonNegativeFloat = 0.0
    """Weight of the L1 norm of the mask of KL."""

    def __post_init__(self) -> None:
        unread = [name for name, kind in (("l1_kl", RewardOnly), ("l1_reward", KlOnly)) if getattr(self, name) and isinstance(self.masks, kind)]
        if unread:
            raise UsageError(
                f"{unread[0]} is the weight of a mask that masks:{'reward-only' if unread[0] == 'l1_kl' else 'kl-only'} fixes at 1; drop it"
            )
        fixed = "network:random-mask" if isinstance(self.network, RandomMask) else "activation:binary" if isinstance(self.activation, Binary) else ""
        if fixed and (self.l1_reward or self.l1_kl):
            raise UsageError(f"with {fixed} no mask trains, so an L1 norm of it has no gradient; drop l1_reward and l1_kl")

    @property
    def reading(self) -> int:
        """Numbers per token of the reference's hidden states."""
        return 0 if isinstance(self.network, RandomMask) else self.masks.count

    @property
    def make_reader(self) -> Callable[[int, int, torch.Generator], nn.Module] | None:
        """(blocks, hidden size, generator) -> the networks."""
        network = self.network
        return None if isinstance(network, RandomMask) else lambda *size: network.build(self.masks.count, *size)

    @property
    def module_decay(self) -> float:
        """That of the networks."""
        return self.network.weight_decay

    def __call__(self, pair: Pair) -> Terms:
        """The preference and the L1 norms of both masks, means over pairs."""
        masks = self._masks(pair)
        preference = dpo_loss(masked_margin(pair, masks), beta=self.beta)
        sizes = [sum_sizes(pair, [own[place] for own in masks]) for place in (0, 1)]
        ones = torch.ones_like(preference)
        return {
            "preference": Term(preference, ones),
            "l1_reward": Term(sizes[0], ones, self.l1_reward),
            "l1_kl": Term(sizes[1], ones, self.l1_kl),
        }

    def measures(self, pair: Pair) -> Terms:
        """Margin and accuracy of the loss; each side's masked score, KL and masked KL; the share of masks that are exactly 0."""
        masks = self._masks(pair)
        found = margin_measures(masked_margin(pair, masks), beta=self.beta)
        for (role, side), (reward, kl) in zip(pair.sides.items(), masks, strict=True):
            score, kept = masked_score(side, reward, kl), masked_score(side, torch.zeros_like(kl), kl)
            found |= {
                f"score/{role}": Term(self.beta * score, torch.ones_like(score)),
                f"kl/{role}": whole_kl(side),
                f"kl/masked_{role}": Term(kept, torch.ones_like(kept)),
                f"mask/zero_reward_{role}": zero_share(side, reward),
                f"mask/zero_kl_{role}": zero_share(side, kl),
            }
        return found

    def _masks(self, pair: Pair) -> list[tuple[Values, Values]]:
        """By side, the masks of rewards and of KL, times the token credit."""
        found = []
        for number, side in enumerate((pair.chosen, pair.rejected)):
            reward, kl = self.masks(self._made(pair, side, number))
            weight = token_weight(side)
            found.append((reward * weight, kl * weight))
        return found

    def _made(self, pair: Pair, side: Side, number: int) -> tuple[Values, ...]:
        network = self.network
        if isinstance(network, RandomMask):
            draws = [network.draw(pair.columns["row"], side.mask, 2 * number + place) for place in range(self.masks.count)]
            return tuple(torch.where(side.mask, own, 0.0).to(token_weight(side)) for own in draws)
        if side.reading is None:
            raise ValueError("sparsepo needs what its networks read of the reference; train it, or give Side.reading")
        return activate(side.reading, side.mask, self.activation)


def masked_margin(pair: Pair, masks: list[tuple[Values, Values]]) -> Float[Tensor, " B"]:
    """The chosen answer's masked score minus the rejected one's, nats; `masks`: of rewards and of KL, by side."""
    chosen, rejected = masks
    return masked_score(pair.chosen, *chosen) - masked_score(pair.rejected, *rejected)


def sum_sizes(pair: Pair, masks: list[Values]) -> Float[Tensor, " B"]:
    """L1 norm of a mask over both answers."""
    return torch.stack([masked_sum(own.abs(), side.mask) for own, side in zip(masks, (pair.chosen, pair.rejected), strict=True)]).sum(0)


def zero_share(side: Side, mask: Values) -> Term:
    """Share of an answer's tokens whose mask is exactly 0."""
    zeros = side.mask & (mask == 0)
    return Term(zeros.sum(-1).to(mask.dtype), side.mask.sum(-1).to(mask.dtype))
