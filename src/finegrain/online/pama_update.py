"""What an update of the policy reads and keeps for PAMA: means over its tokens, their moving mean, and what is logged."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.online.mixture import LossMixture, step_numbers
from finegrain.online.pama import PAMA, MovingMean, ToReference, project_zero
from finegrain.online.surrogates import Clip
from finegrain.online.value_loss import live_weight, read_advantages, read_old_logp
from finegrain.types import Pair, Side, Summed, Term, Terms

SUMS, COUNT = "pama/sums", "pama/count"
"""Statistics: sums of the gated advantages over an update's tokens, and these tokens' weight. Tables: moving sums of means and of their weight."""


@dataclass(frozen=True, kw_only=True)
class PamaUpdate:
    """PAMA with what it reads of the loss."""

    pama: PAMA
    clip: Clip
    single: bool
    """Whether a buffer gets one update."""
    names: tuple[str, ...]
    """Of the rewards."""

    @property
    def reads_means(self) -> bool:
        """Whether the loss depends on a_i."""
        return self.pama.reading.reads_means

    @property
    def to_reference(self) -> bool:
        """Whether u is the ratio to the reference."""
        return isinstance(self.pama.ratio, ToReference)

    @property
    def at_ratio_1(self) -> bool:
        """Whether every u is 1, whatever the policy."""
        return self.single and not self.to_reference

    @property
    def moving(self) -> MovingMean | None:
        """The moving mean, where the loss reads it."""
        return self.pama.average if isinstance(self.pama.average, MovingMean) and self.reads_means else None

    def mixture(self, pair: Pair) -> LossMixture:
        """The losses of an update and their weights."""
        return self.pama.mix(read_advantages(pair.answer), pair.answer.mask, self._means(pair))

    def sum_gated(self, pair: Pair) -> dict[str, Summed]:
        """The statistics of the rows."""
        return {SUMS: Summed(self._gated(pair.answer).sum((0, 1))), COUNT: Summed(live_weight(pair.answer).sum())}

    def start(self) -> dict[str, Tensor]:
        """The moving mean before the first update."""
        return {SUMS: torch.zeros(len(self.names)), COUNT: torch.zeros(())}

    def note(self, state: Mapping[str, Tensor], pair: Pair) -> dict[str, Tensor]:
        """The same sums as they are found in the pass with gradients, for the moving mean."""
        return {name: found.value for name, found in self.sum_gated(pair).items()}

    def carry(self, state: Mapping[str, Tensor], added: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The moving mean with an update's own."""
        assert self.moving is not None
        decay, (means, present) = self.moving.decay, _divide(added[SUMS], added[COUNT])
        kept = decay + (1 - decay) * (1 - present)  # an update without tokens leaves it
        return {SUMS: kept * state[SUMS] + (1 - decay) * means, COUNT: kept * state[COUNT] + (1 - decay) * present}

    def measures(self, pair: Pair) -> Terms:
        """a_i, c and s of the update, or of the tokens that are reinforced where the theorem is applied at each of them."""
        weight, sums = live_weight(pair.answer), self._gated(pair.answer).sum(1)
        found = {f"pama/a/{name}": Term(sums[:, place], weight.sum(-1)) for place, name in enumerate(self.names)}
        if self.reads_means:
            return {**found, **step_numbers(self.pama.facts(self._means(pair), self.names), weight)}
        return {**found, **self._shares_least(pair.answer, weight)}

    def _gated(self, side: Side) -> Float[Tensor, "B T n"]:
        """I of every token and reward, times the token's weight."""
        anchor = side.ref_logp if self.to_reference else read_old_logp(side, single=self.single)
        if anchor is None:
            raise ValueError("ratio:to-reference reads Side.ref_logp")
        weight = live_weight(side)
        return self.pama.gate(read_advantages(side), side.logp.detach(), anchor, weight != 0, self.clip) * weight[..., None]

    def _means(self, pair: Pair) -> Float[Tensor, " n"]:
        """a_i of the update, or the moving mean with it; 0 for a reading that has none."""
        if not self.reads_means:
            return torch.zeros(len(self.names), device=pair.answer.logp.device)
        found: Mapping[str, Tensor] = {name: pair.statistics[name] for name in (SUMS, COUNT)}
        if self.moving is not None:
            found = self.carry(pair.state, found)
        return _divide(found[SUMS], found[COUNT])[0]

    def _shares_least(self, side: Side, weight: Float[Tensor, "B T"]) -> Terms:
        """Shares of the tokens with an advantage at which each reward is the one nearest to 0; of several the first."""
        kept = self.pama.clean(read_advantages(side), side.mask)
        pushed = (weight != 0) & (project_zero(kept) != 0)
        least = kept.abs().sort(dim=-1, stable=True).indices[..., 0]
        counts = pushed.sum(-1).to(weight.dtype)
        return {f"pama/c/{name}": Term((pushed & (least == place)).sum(-1).to(counts), counts) for place, name in enumerate(self.names)}


def _divide(sums: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """(sums / count, 1), or (0, 0) where nothing counts."""
    present = (count > 0).to(sums.dtype)
    return sums / torch.where(count > 0, count, 1.0) * present, present
