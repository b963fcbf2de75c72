"""A-LoL, advantage-based leftover lunch: likelihood of existing answers, weighted by how much better than expected their reward is.

    A = R(x, y) - V(x),  A+ = max(A, 0),  N = -sum over t of log pi(y_t)
    ratio      A+ clip(pi(y) / ref(y)) N                            ref-free   A+ N
    seq        A+ sum over t of clip(pi(y_t) / ref(y_t)) nll_t      kl         A+ N + beta log(pi(y) / ref(y))

Source: Baheti et al. 2023, https://arxiv.org/abs/2305.14718, and the authors' released code.
Deviations: the value's padding mask and the prompts held out of its fit (`finegrain.ops.prompt_value`). The variant without a reference
clamps advantages like the others, also where every row is read. The best step is not chosen by rewards of generated answers.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, checked
from finegrain.objectives.advantage import FittedValue, MeanReward
from finegrain.objectives.reward_rows import REWARD, Numbers, RewardContext, RewardRows
from finegrain.ops.sequence import kept_weight, log_ratio, sequence_logp, to_wide, weighted_sum
from finegrain.types import Pair, Side, Term, Terms

Rows = Float[Tensor, " B"]
ADVANTAGE, VALUE = "advantage", "prompt_value"
"""Numbers of the rows that the stage makes."""
ROUNDING = 1e-6
"""Share of a reward below which an advantage is none."""


def clipped_ratio(log_ratios: Tensor, clip: float | None) -> Tensor:
    """exp of log-ratios, detached, in [1 - clip, 1 + clip]; None: not clipped."""
    ratio = log_ratios.detach().exp()
    return ratio if clip is None else ratio.clamp(1 - clip, 1 + clip)


def token_log_ratios(side: Side) -> Float[Tensor, "B T"]:
    """log pi(y_t) - log ref(y_t), nats; 0 outside the mask."""
    assert side.ref_logp is not None, "the ratio needs a reference"
    return torch.where(side.mask, to_wide(side.logp) - to_wide(side.ref_logp), 0.0)


@dataclass(frozen=True, kw_only=True)
@checked
class Ratio:
    """A-LoL: the importance ratio of the whole answer."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    clip: NonNegativeFloat | None = 0.9
    """The ratio lies in [1 - clip, 1 + clip]; None: not clipped, as the authors do for generation tasks: it then explodes or vanishes."""

    def __call__(self, side: Side, positive: Rows) -> Rows:
        """Loss of each row (B,)."""
        return -positive * clipped_ratio(log_ratio(side), self.clip) * sequence_logp(side)

    def clipped(self, side: Side) -> Term:
        """Share of the answers whose ratio is clipped."""
        ratio = log_ratio(side).detach()
        return Term(_outside(ratio, self.clip), torch.ones_like(ratio))


@dataclass(frozen=True, kw_only=True)
class RefFree:
    """A-LoL without a reference: the ratio is taken to be 1."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})

    def __call__(self, side: Side, positive: Rows) -> Rows:
        """Loss of each row (B,)."""
        return -positive * sequence_logp(side)


@dataclass(frozen=True, kw_only=True)
@checked
class Seq:
    """A-LoL seq: each token's own ratio. A biased stand-in for the gradient of the whole answer's, and the authors' best variant."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    clip: NonNegativeFloat | None = 0.9
    """Each ratio lies in [1 - clip, 1 + clip]; None: not clipped."""

    def __call__(self, side: Side, positive: Rows) -> Rows:
        """Loss of each row (B,)."""
        logp = torch.where(side.mask, to_wide(side.logp), 0.0)
        return -positive * weighted_sum(clipped_ratio(token_log_ratios(side), self.clip) * logp, side)

    def clipped(self, side: Side) -> Term:
        """Share of the tokens whose ratio is clipped."""
        outside = torch.where(side.mask, _outside(token_log_ratios(side).detach(), self.clip), 0.0)
        return Term(outside.sum(-1), side.mask.sum(-1).to(outside.dtype))


@dataclass(frozen=True, kw_only=True)
@checked
class KL:
    """A-LoL KL: no ratio; the log-ratio of the answer is paid for. Where A+ is below beta the answer is pushed down."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    beta: NonNegativeFloat = 0.05
    """Weight of the log-ratio, per nat; 0 is ref-free."""

    def __call__(self, side: Side, positive: Rows) -> Rows:
        """Loss of each row (B,)."""
        return -positive * sequence_logp(side) + self.beta * log_ratio(side)


@dataclass(frozen=True, kw_only=True)
@checked
class ALoL(RewardRows):
    """Hyper-parameters of A-LoL."""

    learning_rate: ClassVar[float] = 2e-6
    """A tenth of nll's [choice]: at nll's most ratios are soon clipped."""

    variant: Ratio | RefFree | Seq | KL = field(default_factory=Ratio)
    """ratio (A-LoL), ref-free, seq, or kl."""
    value: FittedValue | MeanReward = field(default_factory=FittedValue)
    """fitted-value, of the start model's answers to training prompts; or mean-reward, without samples."""

    @property
    def needs(self) -> frozenset[str]:
        """As the variant reads it."""
        return self.variant.needs

    @property
    def made(self) -> tuple[str, ...]:
        """Numbers of the stage."""
        return (ADVANTAGE, VALUE, *super().made)

    @property
    def unbounded(self) -> str:
        """The kl variant is, where a row's advantage is below beta."""
        return "an answer whose advantage is below beta becomes ever less likely" if isinstance(self.variant, KL) and self.variant.beta else ""

    def stage(self, rows: RewardContext) -> dict[str, Numbers]:
        """Rewards, values and advantages of the rows; raises UsageError where a column of rewards would have to score samples."""
        self.value.check(self.reward)
        rewards = self._rewards(rows)
        values = self.value(rows, self.reward, self.scale, rewards)
        advantage = _above_rounding(rewards - values, rewards)
        if rows.trains:
            rows.record({"mean_reward": float(rewards.mean()), "mean_value": float(values.mean()), "mean_advantage": float(advantage.mean())})
        return {REWARD: rewards, VALUE: values, ADVANTAGE: advantage, **self._drawn(rows, advantage, ADVANTAGE)}

    def __call__(self, pair: Pair) -> Rows:
        """Per-row loss (B,), nats times reward."""
        advantage = pair.columns[ADVANTAGE].to(to_wide(pair.answer.logp).dtype)
        return self.variant(pair.answer, torch.where(advantage > 0, advantage, 0.0))

    def held_out_loss(self, pair: Pair) -> Rows:
        """Without the ratio, which is small, and the loss with it, where the policy finds an answer unlikely; of kl the loss itself."""
        return self(pair) if isinstance(self.variant, KL) else replace(self, variant=RefFree())(pair)

    def measures(self, pair: Pair) -> Terms:
        """NLL per token of answers better than expected and of the others; share of clipped ratios."""
        side, advantage = pair.answer, pair.columns[ADVANTAGE]
        found = {}
        for name, there in (("nll/good", advantage > 0), ("nll/poor", advantage <= 0)):
            found[name] = Term(torch.where(there, -sequence_logp(side), 0.0), torch.where(there, kept_weight(side), 0.0))
        return {**found, "ratio/clipped": self.variant.clipped(side)} if isinstance(self.variant, (Ratio, Seq)) else found


def _above_rounding(advantage: Numbers, rewards: Numbers) -> Numbers:
    """0 for what is only the rounding of a mean, or of a value in float32: equal rewards are no better than each other."""
    kept: Numbers = np.where(np.abs(advantage) > ROUNDING * np.abs(rewards), advantage, 0.0)
    return kept


def _outside(log_ratios: Tensor, clip: float | None) -> Tensor:
    """1 where a ratio lies outside its bounds."""
    ratio = log_ratios.exp()
    return torch.zeros_like(ratio) if clip is None else ((ratio < 1 - clip) | (ratio > 1 + clip)).to(ratio.dtype)
