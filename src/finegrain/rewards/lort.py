"""Repair of a rating head trained on long-tailed ratings: its last layer is retrained on frozen features towards flatter targets.

Source: https://arxiv.org/abs/2403.00250 (Label Over-Smooth); settings of stage 2 from the authors' code.
Deviations: on short scales the target keeps the odds, not the smoothing; balanced sampling, temperature and the choice on held-out rows
are ours [OURS]; features stay in evaluation mode, where the authors let batch statistics change.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import log_softmax

from finegrain.checked import PositiveFloat, PositiveInt, Seed, ShareBelowOne, checked
from finegrain.errors import DataError, UsageError
from finegrain.rewards.targets import OddsTarget, Target
from finegrain.types import chunks

Logits = Float[Tensor, "B K"]
Labels = Int[Tensor, " B"]
Rows = Float[Tensor, " B"]


def target_loss(logits: Logits, targets: Float[Tensor, "B K"]) -> Rows:
    """Cross-entropy between target and predicted distributions; its minimum is the target's entropy."""
    return -(targets.to(logits.dtype) * log_softmax(logits, 1)).sum(1)


class LogitMagnitude(NamedTuple):
    """Size of the head's logits by class: unequal magnitudes favour frequent classes."""

    magnitude: Float[Tensor, " K"]
    """Mean logit of the class on its own rows minus on the others; NaN for a class without rows, or without others."""
    relative_std: Float[Tensor, " K"]
    """Standard deviation of the class's logit over all rows, over the magnitude [memory]."""


def logit_magnitude(logits: Logits, labels: Labels) -> LogitMagnitude:
    """Diagnostics by class."""
    own = torch.nn.functional.one_hot(labels.long(), logits.shape[1])
    others = 1 - own
    magnitude = (own * logits).sum(0) / own.sum(0) - (others * logits).sum(0) / others.sum(0)
    return LogitMagnitude(magnitude, logits.std(0, correction=0) / magnitude)


def expected_rating(logits: Logits, temperature: float = 1.0) -> Rows:
    """sum_k k p_k over classes 0 .. K-1: the reward of a rating head. Add the lowest rating for the scale's own numbers."""
    if temperature <= 0:
        raise UsageError(f"temperature must be positive, got {temperature}")
    ratings = torch.arange(logits.shape[1], device=logits.device, dtype=logits.dtype)
    return torch.softmax(logits / temperature, 1) @ ratings


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature with the lowest negative log-likelihood on held-out rows, between 1/1000 and 1000.

    After training on flat targets probabilities are near uniform and expected ratings near the middle; the temperature corrects this.
    """
    if not len(labels):
        raise DataError("a temperature needs held-out rows with ratings; there are none")
    values, rows = logits.detach().double(), torch.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(values * 10**-log_temperature, 1)[rows, labels.long()].mean())

    return float(10 ** minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-6}).x)


@dataclass(frozen=True, kw_only=True)
class InstanceSampler:
    """Every row once an epoch: the authors' choice."""

    def __call__(self, labels: Labels, generator: torch.Generator) -> Int[Tensor, " _"]:
        """Order of the rows of one epoch."""
        return torch.randperm(len(labels), generator=generator)


@dataclass(frozen=True, kw_only=True)
class BalancedSampler:
    """As many draws as rows, with replacement, every present class equally likely."""

    def __call__(self, labels: Labels, generator: torch.Generator) -> Int[Tensor, " _"]:
        """Order of the rows of one epoch."""
        return torch.multinomial(1.0 / torch.bincount(labels.long()).double()[labels.long()], len(labels), replacement=True, generator=generator)


Sampler = InstanceSampler | BalancedSampler


class LinearHead(NamedTuple):
    """logits = features @ weight.T + bias."""

    weight: Float[Tensor, "K D"]
    bias: Float[Tensor, " K"]

    def __call__(self, features: Float[Tensor, "B D"]) -> Logits:
        """Logits of the rows."""
        return features @ self.weight.T + self.bias


@dataclass(frozen=True, kw_only=True)
@checked
class RetrainHead:
    """Stage 2: the last layer is retrained on cached features."""

    target: Target = field(default_factory=OddsTarget)
    """What the head is trained towards."""
    sampler: Sampler = field(default_factory=BalancedSampler)
    """How rows are drawn. On short scales this matters more than the target."""
    epochs: PositiveInt = 20
    """Passes over the rows."""
    lr: PositiveFloat = 5e-4
    """Peak of a cosine schedule that ends at 0."""
    momentum: ShareBelowOne = 0.9
    """Of SGD."""
    batch_size: PositiveInt = 64
    """Rows per step."""
    seed: Seed = 0
    """Seed of the order of the rows."""

    def __call__(self, features: Float[Tensor, "N D"], labels: Int[Tensor, " N"], head: LinearHead) -> LinearHead:
        """A new head from the given one; features and the given head are not modified."""
        if len(features) != len(labels) or not len(labels):
            raise DataError(f"every row needs features and a rating, got {len(features)} and {len(labels)}")
        targets = self.target(labels, len(head.bias))
        parameters = [part.detach().clone().requires_grad_() for part in head]
        generator, fixed = torch.Generator().manual_seed(self.seed), features.detach()
        optimiser = torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)
        steps = self.epochs * -(-len(labels) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(self.epochs):
            order = self.sampler(labels, generator)
            for rows in (order[part] for part in chunks(len(order), self.batch_size)):
                optimiser.zero_grad()
                target_loss(LinearHead(*parameters)(fixed[rows]), targets[rows]).mean().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
        return LinearHead(*(part.detach() for part in parameters))
