"""What may lie beside a reward model's checkpoint and changes its scores: posteriors and bounds, attached in one order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from finegrain.data.records import Example
from finegrain.models.bounds import WithBounds, attach_bounds, score_gap
from finegrain.models.layer_posterior import AnswerVariance
from finegrain.models.posterior import attach_posterior
from finegrain.models.score import make_group
from finegrain.rewards.heads import RewardHead
from finegrain.scoring.records import Bounded, Scores
from finegrain.types import Json, Side


class Adapter:
    """Changes nothing; kinds of adapters replace what they change."""

    keeps_mean = True
    """Whether an answer's mean is the head's: then it is the number of a stock class, and compared with it."""

    def on_answer(self, scores: Scores, side: Side) -> Scores:
        """The scores of one answer, given the head's outputs for its tokens."""
        return scores

    def on_prompt(self, example: Example, found: Mapping[str, Scores]) -> Mapping[str, Scores]:
        """The scores of all answers of one prompt."""
        return found

    def facts(self) -> Json:
        """For results."""
        return {}

    def describe(self) -> list[str]:
        """For a person."""
        return []


@dataclass(frozen=True)
class FeatureBounds(Adapter):
    """Scores of clipped features, and what clipping took off them."""

    head: WithBounds
    keeps_mean = False

    def on_answer(self, scores: Scores, side: Side) -> Scores:
        """With the score before clipping."""
        assert side.outputs is not None
        gap = float(score_gap(side.outputs, side.mask))
        return scores._replace(bounded=Bounded(float(scores.answer.mean) + gap, gap, gap > self.head.guard.threshold))

    def facts(self) -> Json:
        """The highest score and the loss that is flagged."""
        return {"bounds": {"ceiling": self.head.guard.ceiling, "threshold": self.head.guard.threshold}}

    def describe(self) -> list[str]:
        """The same in words."""
        guard = self.head.guard
        return [f"bounds: features are clipped; no score exceeds {guard.ceiling:.4g}, and a loss of more than {guard.threshold:.4g} is flagged"]


@dataclass(frozen=True)
class LayerUncertainty(Adapter):
    """Answers are less sure by what a posterior over the model's adapter leaves open; of tokens it says nothing."""

    variance: AnswerVariance

    def on_prompt(self, example: Example, found: Mapping[str, Scores]) -> Mapping[str, Scores]:
        """The posterior's variance is added to the answers' own."""
        return _less_sure(found, self.variance(make_group(example, tuple(found))))


def _less_sure(found: Mapping[str, Scores], variances: Sequence[float]) -> Mapping[str, Scores]:
    wider = {}
    for (role, one), variance in zip(found.items(), variances, strict=True):
        own = torch.zeros_like(one.answer.mean) if one.answer.std is None else one.answer.std
        wider[role] = one._replace(answer=one.answer._replace(std=(own.double().square() + variance).sqrt()))
    return wider


def attach_adapters(head: RewardHead, module: nn.Module, folder: Path) -> tuple[RewardHead, nn.Module, tuple[Adapter, ...]]:
    """Head and module of a checkpoint with what lies beside it, in this order: a posterior over the head's weights, then bounds on its features."""
    head, module = attach_posterior(head, module, folder)
    bounded, module = attach_bounds(head, module, folder)
    return (head, module, ()) if bounded is None else (bounded, module, (FeatureBounds(bounded),))
