"""Objectives that exist for the tests only: each needs something of the loop that few methods need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from finegrain.objectives.cpo import CPO
from finegrain.ops.block_reader import BlockReader
from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import log_ratio, to_wide
from finegrain.types import Pair, RowLoss, Side, Summed, Term, Terms, row_losses

BUCKETS = 5


class Gate(nn.Module):
    """A weight in (0, 2) per token from the two log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, 3)
        self.out = nn.Linear(3, 1)

    def forward(self, logp: Tensor, ref_logp: Tensor) -> Tensor:
        features = torch.stack([logp, ref_logp], -1).to(self.out.weight.dtype)
        return 2 * torch.sigmoid(self.out(torch.tanh(self.hidden(features)))[..., 0])


@dataclass(frozen=True, kw_only=True)
class Gated:
    """DPO under token weights of a trained module, shifted by a table of past margins; the gate's size is a second term."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference", "entropy"})
    learning_rate: ClassVar[float] = 1e-6
    beta: float = 0.1

    def modules(self) -> dict[str, nn.Module]:
        return {"gate": Gate()}

    def state(self) -> dict[str, Tensor]:
        return {"margin": torch.zeros(BUCKETS, dtype=torch.float64), "seen": torch.zeros(BUCKETS, dtype=torch.float64)}

    def after_step(self, state: Any, pair: Pair) -> dict[str, Tensor]:
        bucket = self._bucket(pair)
        empty = torch.zeros_like(pair.state["margin"])
        margin = (log_ratio(pair.chosen) - log_ratio(pair.rejected)).to(empty)
        return {"margin": empty.index_add(0, bucket, margin), "seen": empty.index_add(0, bucket, torch.ones_like(margin))}

    def __call__(self, pair: Pair) -> Terms:
        past = (pair.state["margin"] / pair.state["seen"].clamp(min=1))[self._bucket(pair)]
        gates = {role: self._gate(pair, side) for role, side in pair.sides.items()}
        chosen, rejected = (masked_sum(gates[role] * self._ratio(side), side.mask) for role, side in pair.sides.items())
        preference = -logsigmoid(self.beta * (chosen - rejected - 0.1 * past.to(chosen.dtype)))
        tokens = torch.stack([side.mask.sum(-1) for side in pair.sides.values()]).sum(0).to(preference.dtype)
        size = torch.stack([masked_sum((gates[role] - 1).square(), side.mask) for role, side in pair.sides.items()]).sum(0)
        calm = torch.stack([masked_sum(to_wide(side.entropy), side.mask) for side in pair.sides.values()]).sum(0)
        return {
            "preference": Term(preference, torch.ones_like(preference)),
            "gate": Term(size, tokens, 0.1),
            "entropy": Term(-calm, tokens, 0.01),
        }

    def _bucket(self, pair: Pair) -> Tensor:
        return pair.columns["position"].long() % BUCKETS

    def _gate(self, pair: Pair, side: Side) -> Tensor:
        zero = torch.zeros_like(to_wide(side.logp))
        ref = torch.where(side.mask, to_wide(side.ref_logp).to(zero.dtype), 0.0)
        return pair.modules["gate"](torch.where(side.mask, to_wide(side.logp).detach(), 0.0), ref).to(zero.dtype)

    def _ratio(self, side: Side) -> Tensor:
        return torch.where(side.mask, to_wide(side.logp) - to_wide(side.ref_logp), 0.0)


@dataclass(frozen=True, kw_only=True)
class UnitGradients:
    """DPO and the likelihood of chosen tokens, of which each row contributes a gradient of norm 1, times its share of the loss."""

    gradient_cost: ClassVar[str] = "a backward pass for every row and term"
    beta: float = 0.1

    def __call__(self, pair: Pair) -> Terms:
        preference = -logsigmoid(self.beta * (log_ratio(pair.chosen) - log_ratio(pair.rejected)))
        tokens = pair.chosen.mask.sum(-1).to(preference.dtype)
        return {
            "preference": Term(preference, torch.ones_like(preference)),
            "likelihood": Term(-masked_sum(to_wide(pair.chosen.logp), pair.chosen.mask), tokens, 0.5),
        }

    def gradient(self, pair: Pair, losses: Mapping[str, RowLoss], parameters: list[nn.Parameter]) -> list[Tensor]:
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for value, share in losses.values():
            for loss, factor in zip(value, share, strict=True):
                found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
                norm = torch.stack([part.square().sum() for part in found if part is not None]).sum().sqrt()
                total = [have if part is None else have + factor * part / norm for have, part in zip(total, found, strict=True)]
        return total


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Likelihood of chosen tokens, and against rejected ones that are still likely; each term over the tokens whose gate is open.

    A table of open shares by bucket moves a tenth of the way to what the step found, for the buckets that it met.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    learning_rate: ClassVar[float] = 1e-6
    threshold: float = -4.5

    def state(self) -> dict[str, Tensor]:
        return {"open": torch.full((BUCKETS,), 0.9, dtype=torch.float64)}

    def column_statistics(self, pair: Pair) -> dict[str, Summed]:
        tokens = torch.stack([side.mask.sum() for side in pair.sides.values()]).sum()
        return {"tokens": Summed(tokens.float())}

    def after_step(self, state: Any, pair: Pair) -> dict[str, Tensor]:
        bucket, empty = pair.columns["position"].long() % BUCKETS, torch.zeros_like(state["open"])
        share = self._gate(pair.rejected).sum(-1) / pair.rejected.mask.sum(-1).clamp(min=1)
        return {"sum": empty.index_add(0, bucket, share.to(empty)), "rows": empty.index_add(0, bucket, torch.ones_like(share).to(empty))}

    def update_state(self, state: Any, sums: Any) -> dict[str, Tensor]:
        mean = sums["sum"] / sums["rows"].clamp(min=1)
        return {"open": torch.where(sums["rows"] > 0, 0.9 * state["open"] + 0.1 * mean, state["open"])}

    def __call__(self, pair: Pair) -> Terms:
        gate = self._gate(pair.rejected)
        chosen, rejected = (to_wide(side.logp) for side in (pair.chosen, pair.rejected))
        past = pair.state["open"][pair.columns["position"].long() % BUCKETS].to(chosen.dtype)
        tokens = pair.chosen.mask.sum(-1).to(chosen.dtype)
        evenly = torch.ones_like(tokens) if "tokens" not in pair.statistics else torch.full_like(tokens, float(pair.statistics["tokens"]))
        return {
            "likelihood": Term(-masked_sum(chosen, pair.chosen.mask), tokens),
            "gated": Term(past * masked_sum(rejected, gate), gate.sum(-1).to(chosen.dtype), 0.03, late=True),
            "scaled": Term(1e-3 * evenly * masked_sum(chosen, pair.chosen.mask).square(), tokens * evenly, late=True),
        }

    def _gate(self, side: Side) -> Tensor:
        return side.mask & (torch.where(side.mask, side.logp.detach(), 0.0) > self.threshold)


@dataclass(frozen=True, kw_only=True)
class KLDifference:
    """DPO whose log-ratios pay for KL(reference || policy) of both answers, and for half of KL(policy || reference) of the rejected ones."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference", "kl", "reference_kl"})
    beta: float = 0.1

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        def paid(side: Side, share: float) -> Tensor:
            cost = to_wide(side.reference_kl) + share * to_wide(side.kl)
            return masked_sum(to_wide(side.logp) - to_wide(side.ref_logp) - cost, side.mask)

        return -logsigmoid(self.beta * (paid(pair.chosen, 0.0) - paid(pair.rejected, 0.5)))


@dataclass(frozen=True, kw_only=True)
class Reliable:
    """A loss of pairs under the probability that its annotator is right, who has a table entry that moves towards the step's mean of them.

    In the form of https://arxiv.org/abs/2509.24159: log p = log sigma(loss of the swapped pair - loss of the pair).
    """

    categories: ClassVar[tuple[str, ...]] = ("annotator",)
    base: Any = field(default_factory=CPO)
    rate: float = 0.1

    @property
    def wraps(self) -> Any:
        return self.base

    def make_state(self, categories: Mapping[str, int]) -> dict[str, Tensor]:
        return {"reliability": torch.full((categories["annotator"],), 0.9, dtype=torch.float64)}

    def column_statistics(self, pair: Pair) -> dict[str, Summed]:
        empty = torch.zeros_like(pair.state["reliability"])
        who = pair.columns["annotator"].long()
        return {"rows_of": Summed(empty.index_add(0, who, torch.ones_like(who, dtype=empty.dtype)))}

    def after_step(self, state: Any, pair: Pair) -> dict[str, Tensor]:
        right = self._right(pair)[1].to(state["reliability"])
        return {"right": torch.zeros_like(state["reliability"]).index_add(0, pair.columns["annotator"].long(), right / self._rows(pair))}

    def update_state(self, state: Any, sums: Any) -> dict[str, Tensor]:
        before = state["reliability"]
        return {"reliability": torch.where(sums["right"] > 0, (1 - self.rate) * before + self.rate * sums["right"], before)}

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        odds, right = self._right(pair)
        return -(right * logsigmoid(odds) + (1 - right) * logsigmoid(-odds))

    def _right(self, pair: Pair) -> tuple[Tensor, Tensor]:
        odds = row_losses(self.base(pair.swapped())) - row_losses(self.base(pair))
        past = pair.state["reliability"][pair.columns["annotator"].long()].to(odds.dtype)
        return odds, torch.sigmoid(odds + torch.logit(past)).detach()

    def _rows(self, pair: Pair) -> Tensor:
        return pair.statistics["rows_of"][pair.columns["annotator"].long()]


class AllBlocks(BlockReader):
    """A number per block, mixed into two masks per token."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(nn.Linear(width, 1) for _ in range(blocks))
        self.mix = nn.Linear(blocks, 2)

    def read_block(self, number: int, states: Tensor) -> Tensor:
        found: Tensor = self.layers[number](self.norm(states))
        return found

    def forward(self, read: Sequence[Tensor]) -> Tensor:
        return torch.nn.functional.softplus(self.mix(torch.cat(list(read), -1)))


@dataclass(frozen=True, kw_only=True)
class CentresItsMicroBatch:
    """Broken on purpose: the mean it subtracts is that of whatever rows came together."""

    beta: float = 0.1

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        margin = log_ratio(pair.chosen) - log_ratio(pair.rejected)
        return -logsigmoid(self.beta * (margin - margin.mean()))
