"""Rewards of a buffer relative to what a fixed sampler's answers to the same prompts score, before anything else is done to them.

    R_c = (R - b(x)) / scale(x),    R: the whole reward of an answer, that of its tokens included;    0 where R <= b(x), if only gains count

Source: contrastive rewards, https://arxiv.org/abs/2403.07708 (the two-step recipe); the scale and the gate are ours [choice].
Deviations: where the reward stands on tokens, b(x) is taken off the part that stands on no token, so that token rewards keep their differences;
the scale divides both parts, and the gate takes both.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.online.rollout import Rollout

Rewards = Float[Tensor, "B n"]


def contrast_rewards(rollout: Rollout) -> Rollout:
    """The buffer with relative rewards; as it is where no reward has a baseline. Answers that a reward did not judge stay so."""
    if rollout.baseline is None:
        return rollout
    known = ~rollout.baseline.isnan()
    bar = torch.where(known, rollout.baseline, 0.0).to(rollout.sequence.dtype)
    scale = _scale(rollout, known).to(rollout.sequence.dtype)
    sequence, tokens = (rollout.sequence - bar) / scale, rollout.tokens / scale[:, None].to(rollout.tokens.dtype)
    if rollout.above_only:
        below = known & (rollout.totals <= bar)  # never of an answer that nobody judged: NaN is not below
        sequence, tokens = torch.where(below, 0.0, sequence), torch.where(below[:, None], 0.0, tokens)
    return replace(rollout, sequence=sequence, tokens=tokens, baseline=None, baseline_scale=None, above_only=False)


def contrast_facts(rollout: Rollout, names: Sequence[str]) -> dict[str, float]:
    """By reward with a baseline: the mean relative reward, and the share of answers above the baseline, which is the win rate by this reward."""
    if rollout.baseline is None:
        return {}
    bar, relative = rollout.baseline, contrast_rewards(rollout).totals
    found: dict[str, float] = {}
    for place, name in enumerate(names):
        judged = ~relative[:, place].isnan() & ~bar[:, place].isnan()
        if judged.any():
            own = relative[judged, place]
            found |= {f"contrast/{name}/mean": float(own.mean()), f"contrast/{name}/above": float((own > 0).double().mean())}
    return found


def _scale(rollout: Rollout, known: Bool[Tensor, "B n"]) -> Rewards:
    if rollout.baseline_scale is None:
        return torch.ones_like(rollout.sequence)
    return torch.where(known, rollout.baseline_scale, 1.0)
