"""Token reward: the scorer's centred reward per token and its certainty, for `objective:token-distillation` [OURS].

Source: ours (docs/methods/token-reward.md).
Deviations: not from a paper. The certainty s^2 / (s^2 + std^2) and the prior weight n0 are [choice].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.credit.answers import CreditedAnswer, make_columns
from finegrain.credit.context import CreditContext
from finegrain.credit.cutting import CreditSegmenter, check_segmenter, cut_answers
from finegrain.credit.signal_facts import Direction
from finegrain.credit.signals import Auto, SignalChoice, Table, check_complete, check_scorer, read_answers, resolve_signal
from finegrain.credit.uncertainty import shrunk_std
from finegrain.errors import UsageError
from finegrain.ops.segmenters import Tokens
from finegrain.types import Scored, TokenColumns, WeightMeaning


def certainty(std: Float[Tensor, " T"], *, scale: float) -> Float[Tensor, " T"]:
    """scale^2 / (scale^2 + std^2): the share of a reward's variance that is not error, 1 where std is 0; scale is the reward's rms."""
    total = scale**2 + std.square()
    return torch.where(total > 0, scale**2 / torch.where(total > 0, total, 1.0), 1.0)


@dataclass(frozen=True, kw_only=True)
@checked
class TokenReward:
    """A target for every token, and its certainty as weight."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.CERTAINTY

    scorer: str | None = None
    """A causal LM fine-tuned by DPO, or a reward model; without it, and without a column or spans on all answers, the run makes its own."""
    signal: SignalChoice = field(default_factory=Auto)
    """The source of token rewards."""
    segmenter: CreditSegmenter = field(default_factory=Tokens)
    """The unit over which the objective sums before it compares; whole is sequence-level reward distillation."""
    size: PositiveFloat = 1.0
    """What the rewards are multiplied by: shrunken targets are reached soon, and a larger size moves further from the reference."""
    n0: NonNegativeFloat = 4.0
    """Weight of the pooled variance in observations; a token's own variance from two members counts as one [choice]."""

    def __post_init__(self) -> None:
        check_scorer(self.signal, self.scorer)

    def check(self) -> None:
        """Raises UsageError for settings that mean nothing together."""
        check_complete(self.signal, self.scorer)
        check_segmenter(self.segmenter, self.signal.facts)
        if self.signal.facts.direction is Direction.NONE and not self.signal.facts.additive:
            raise UsageError(f"credit:token-reward learns rewards, but of the signal {self.signal.facts.name} {self.signal.facts.direction.value}")

    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        """The mean minus the mean of all tokens as reward, certainty as weight where the uncertainty is known, segment ids."""
        self.check()
        signal = resolve_signal(self.signal, self.scorer, context)
        answers = read_answers(signal, context)
        masks, means = [answer.mask for answer in answers], [answer.scored.mean for answer in answers]
        every = torch.cat([mean[mask] for mean, mask in zip(means, masks, strict=True)])
        rewards = [self.size * torch.where(mask, mean - every.mean(), 0.0) for mean, mask in zip(means, masks, strict=True)]
        centred = [answer._replace(scored=Scored(reward)) for answer, reward in zip(answers, rewards, strict=True)]
        scale = float((every - every.mean()).square().mean().sqrt())
        stds, ids = self._stds(answers), cut_answers(self.segmenter, context, centred)
        spread = stds and [self.size * std for std in stds]
        weight = stds and [torch.where(mask, certainty(std, scale=scale), 0.0) for std, mask in zip(stds, masks, strict=True)]
        if isinstance(signal, Table):
            weight = None  # a posterior mean is the best target whatever its deviation
        return make_columns(context, answers, weight=weight, reward=rewards, segment=ids, reward_std=spread)

    def _stds(self, answers: Sequence[CreditedAnswer]) -> list[Tensor] | None:
        """Standard deviation per token; None where the signal lacks it for some answer."""
        stds = [answer.scored.std for answer in answers]
        known = [std for std in stds if std is not None]
        if len(known) == len(answers):
            return known
        members = [answer.scored.members for answer in answers]
        several = [values for values in members if values is not None and len(values) > 1]
        return shrunk_std(several, [answer.mask for answer in answers], n0=self.n0) if len(several) == len(answers) else None
