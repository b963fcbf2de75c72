"""Draws that depend on a number alone: the same in every epoch, for any batching and on any device."""

from jaxtyping import Float, Int
from torch import Tensor

from finegrain.ops.precision import to_widest


def hash_to_uniform(places: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A number in (0, 1) for every place, always the same one."""
    mixed = (places + 1) * 0x9E3779B1 & 0xFFFFFFFF  # two rounds of a 32-bit multiplicative hash
    mixed = (mixed ^ (mixed >> 15)) * 0x85EBCA6B & 0xFFFFFFFF
    mixed = (mixed ^ (mixed >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    return (to_widest(mixed ^ (mixed >> 16)) + 0.5) / 2**32
