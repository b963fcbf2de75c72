"""Settings of sampling, and how a token is drawn: one uniform number per position, by the inverse of the cumulative distribution.

A number belongs to (seed, buffer, prompt row, sample, position) and to nothing else, so a token does not depend on its neighbours in a batch, on
the order of the prompts, or on how many tokens a pass computes; a resumed run needs no state of a generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int32
from torch import Tensor
from torch.nn.functional import pad

from finegrain.checked import NonNegativeFloat, NonNegativeInt, PositiveInt, Share, checked
from finegrain.errors import NonFiniteError, UsageError
from finegrain.online.rollout import Ended

BLOCK = 128
"""Tokens of the vocabulary that are summed at once: the cumulative sum of the blocks is short, and exact in float64."""


@checked
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are sampled."""

    answers: PositiveInt = 8
    """Answers per prompt."""
    max_new_tokens: PositiveInt = 256
    """Longest answer in tokens, its end token included."""
    temperature: NonNegativeFloat = 1.0
    """Divides the logits; at 0 the most likely token is taken."""
    stop: tuple[str, ...] = ()
    """An answer ends at the token in which one of these strings is complete; its text ends before the string."""
    top_p: Share = 1.0
    """Draws from the most likely tokens that together have this probability; 1: from all. Refused in training."""
    top_k: NonNegativeInt = 0
    """Draws from this many most likely tokens; 0: from all. Refused in training."""
    lookup_tokens: NonNegativeInt = 0
    """Tokens proposed at a time where the last ones occurred before; they change the speed and no token. 0: none."""
    lookup_match: PositiveInt = 2
    """Last tokens that must have occurred before, in the prompt or the answer."""

    def __post_init__(self) -> None:
        if not all(self.stop):
            raise UsageError("an empty stop string would end every answer before its first token")
        if not self.top_p:
            raise UsageError(
                "top_p is 0, which leaves no token to draw; 1 draws from the whole vocabulary, and temperature 0 is the most likely token"
            )

    def check_for_training(self) -> None:
        """Stops with an error on what would bias the policy's gradient."""
        for name, full in (("top_p", 1.0), ("top_k", 0)):
            if (value := getattr(self, name)) != full:
                raise UsageError(
                    f"{name} {value:g} is not for training: answers would be drawn from a distribution that is cut off, while the policy's ratios "
                    f"are of the whole one, so tokens beyond the cut could never be learned back; leave {name} at {full:g}, and lower the "
                    "temperature if answers should vary less"
                )
        if not self.temperature:
            raise UsageError(
                "temperature 0 is not for training: all answers to a prompt would be the same, and no answer could be better than another"
            )


class Sample(NamedTuple):
    """One answer."""

    ids: Int32[np.ndarray, " T"]
    """Its tokens, the end token included."""
    ended: Ended
    logp: Float64[np.ndarray, " T"]
    """log-probability of each token, nats, of the distribution that it was drawn from (temperature, top_p and top_k applied); at temperature 0 of
    the model's own."""


@runtime_checkable
class Sampler(Protocol):
    """Answers of a policy."""

    def __call__(self, prompts: Sequence[np.ndarray], keys: Sequence[int], buffer: int) -> list[list[Sample]]:
        """By prompt, its answers; none for a prompt that leaves no room in the context, which is counted.

        `keys`: the prompts' row numbers, by which with `buffer` the noise is drawn.
        """

    def describe(self) -> str:
        """Which engine samples, and why, in words."""


def draw_noise(seed: int, buffer: int, row: int, sample: int, count: int) -> Float64[np.ndarray, " T"]:
    """The uniform numbers in [0, 1) of one answer, by position."""
    return np.random.default_rng([seed, buffer, row, sample]).random(count)


class Picked(NamedTuple):
    """Drawn tokens, and the log-probability of each, nats."""

    tokens: Int[Tensor, " N"]
    logp: Float[Tensor, " N"]


def pick(logits: Float[Tensor, "N V"], uniforms: Float[Tensor, " N"], temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0) -> Picked:
    """The tokens at which the cumulative distributions pass the uniform numbers (float64); at temperature 0 the most likely ones.

    Raises NonFiniteError for logits that are no numbers.
    """
    if temperature not in (0.0, 1.0):
        logits = logits / temperature
    if temperature and (top_k or top_p < 1):
        logits = _cut_off(logits, top_p, top_k)
    tops = logits.amax(-1, keepdim=True)
    count, size = logits.shape
    mass = pad((logits - tops).exp_(), (0, -size % BLOCK)).view(count, -1, BLOCK)
    blocks = mass.sum(-1).double().cumsum(-1)
    whole = blocks[:, -1:]
    if not bool(whole.isfinite().all()):
        raise NonFiniteError("the policy's logits are not finite, so no token can be drawn; the run has diverged, or its weights are damaged")
    if not temperature:
        tokens = logits.argmax(-1)
    else:
        wanted = uniforms[:, None] * whole
        block = torch.searchsorted(blocks, wanted, right=True).clamp_(max=blocks.shape[1] - 1)
        before = torch.where(block > 0, blocks.gather(1, (block - 1).clamp(min=0)), 0.0)
        inside = mass[torch.arange(count, device=mass.device), block[:, 0]].double().cumsum(-1)
        share = ((wanted - before) / (blocks.gather(1, block) - before)).clamp_(0.0, 1 - 2.0**-53)
        tokens = block[:, 0] * BLOCK + torch.searchsorted(inside, share * inside[:, -1:], right=True)[:, 0]
    logp = (logits.gather(1, tokens[:, None]) - tops)[:, 0].double() - whole[:, 0].log()
    return Picked(tokens, logp)


def _cut_off(logits: Tensor, top_p: float, top_k: int) -> Tensor:
    """-inf for all but the `top_k` most likely tokens, and of those for all but the fewest that have `top_p` of the probability."""
    ordered, tokens = logits.sort(-1, descending=True)
    if top_k:
        ordered[:, top_k:] = float("-inf")
    before = torch.softmax(ordered, -1, dtype=torch.float64).cumsum(-1).roll(1, -1)
    before[:, 0] = 0.0
    return torch.full_like(logits, float("-inf")).scatter_(1, tokens, ordered.masked_fill(before >= top_p, float("-inf")))
