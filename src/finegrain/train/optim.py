"""Optimiser and learning-rate schedule: AdamW or SGD with linear warm-up, then linear or cosine decay or none; no hidden state."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from finegrain.checked import NonNegativeFloat, PositiveFloat, Share, ShareBelowOne, checked


@dataclass(frozen=True, kw_only=True)
@checked
class Optim:
    """Settings of the optimiser."""

    algorithm: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with momentum beta1: no default rate, and weight decay added to the gradient."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled decay of matrices; vectors (norms, biases) never decay."""
    beta1: ShareBelowOne = 0.9
    beta2: ShareBelowOne = 0.999
    epsilon: PositiveFloat = 1e-8
    max_grad_norm: NonNegativeFloat = 1.0
    """Gradients are scaled down to this norm; 0 never scales."""
    warmup: Share = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How it falls to 0 afterwards."""
    embedding_lr: NonNegativeFloat | None = None
    """Peak rate of the input embeddings. By default that of the rest; of reward models ten times that, up to 0.003."""


FACTOR = "rate_factor"
"""Of a parameter group: its rate over the run's."""


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    extra: Iterable[nn.Parameter],
    settings: Optim,
    lr: float,
    *,
    embeddings: nn.Parameter | None = None,
    embedding_factor: float = 1.0,
    extra_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """The optimiser of the policy (embeddings, matrices and vectors apart) and, in a group of its own, over a method's modules."""
    policy = list(parameters)
    apart = [p for p in policy if p is embeddings]
    rest = [p for p in policy if p is not embeddings]
    groups = [
        {"params": apart, "weight_decay": settings.weight_decay, FACTOR: embedding_factor},
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": settings.weight_decay, FACTOR: 1.0},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0, FACTOR: 1.0},
        {"params": list(extra), "weight_decay": extra_decay, FACTOR: 1.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.algorithm == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=settings.beta1)
    return torch.optim.AdamW(groups, lr=lr, betas=(settings.beta1, settings.beta2), eps=settings.epsilon, fused=True)


def learning_rate(step: int, steps: int, peak: float, settings: Optim) -> float:
    """Learning rate of the 0-based `step` out of `steps`."""
    warmup = math.ceil(settings.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.schedule == "constant":
        return peak
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


def scaled_default(learning_rate_at_4096: float, hidden_size: int) -> float:
    """An objective's default rate, stated for models of width 4096, at another width: proportional to 1 / width.

    [choice] Adam's best rate for hidden matrices falls as 1 / width (Yang et al. 2022, https://arxiv.org/abs/2203.03466, table 8);
    without it the field's defaults, found on 7B models, hardly move a small one.
    """
    return learning_rate_at_4096 * 4096 / hidden_size
