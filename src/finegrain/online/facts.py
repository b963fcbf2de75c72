"""Numbers of a buffer that are logged; names are those of TRL's GRPOTrainer where it has one."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.online.combine import split_by_reward
from finegrain.online.group_statistics import group_statistics
from finegrain.online.leash import K1, K3, estimate_kl
from finegrain.online.rollout import Ended, Rollout
from finegrain.online.token_rewards import TokenRewards
from finegrain.online.transforms import CombinedRewards
from finegrain.online.whiten import moments
from finegrain.ops.masked import masked_mean, masked_sum
from finegrain.ops.precision import to_widest

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]


def advantage_density(advantage: Values, mask: Mask) -> float:
    """Share of the variance of the tokens' advantages that lies within answers: 0 where all tokens of an answer have the same, or all are 0."""
    wide = to_widest(torch.where(mask, advantage, 0.0))
    within = masked_sum((wide - masked_mean(wide, mask)[:, None]).square(), mask).sum()
    total = moments(wide, mask, unbiased=False).variance * mask.sum()
    return float((within / total).clamp(0, 1)) if total > 0 else 0.0


def explained_variance(values: Values, returns: Values, mask: Mask) -> float:
    """1 - Var(return - value) / Var(return) over the tokens; NaN where the returns are all equal."""
    whole = float(moments(to_widest(returns), mask).variance)
    return 1 - float(moments(to_widest(returns) - to_widest(values), mask).variance) / whole if whole > 0 else math.nan


def buffer_facts(
    rewards: TokenRewards, combined: CombinedRewards, advantage: Values, returns: Values | None, live: Mask, by_token: bool = True
) -> dict[str, float]:
    """Rewards before transforms, KL and entropy of the policy that sampled, advantages as they train, lengths.

    live: tokens that train; by_token: whether the surrogate loss keeps the advantages of an answer's tokens apart.

    A number that has nothing to be computed from is left out.
    """
    rollout = rewards.rollout
    found = moments(advantage, live)
    facts = {
        **_rewards(rollout, combined),
        **_policy(rollout),
        "advantage/mean": float(found.mean),
        "advantage/std": float(found.variance.sqrt()),
        "advantage/density": advantage_density(advantage, live) if by_token else 0.0,
        **_lengths(rollout),
    }
    if returns is not None:
        facts["value/explained_variance"] = explained_variance(rewards.values, returns, live)
    return {name: value for name, value in facts.items() if not math.isnan(value)}


def _rewards(rollout: Rollout, combined: CombinedRewards) -> dict[str, float]:
    judged = combined.judged
    totals = torch.where(judged, combined.sequence + masked_sum(combined.tokens, rollout.mask), 0.0)
    own = group_statistics(totals, rollout.group, judged)
    sequence, tokens = split_by_reward(rollout)
    facts = {
        "reward": _mean(totals[judged]),
        "reward_std": float(totals[judged].std()) if judged.sum() > 1 else math.nan,
        "frac_reward_zero_std": _mean((own.std[judged] <= 1e-8).to(own.std.dtype)),
        "unjudged": float((~judged).sum()),
    }
    for place in range(sequence.shape[1]):
        whole = sequence[:, place] + tokens[..., place].sum(1)
        whole = whole[~whole.isnan()]
        facts |= {f"rewards/{place}/mean": _mean(whole), f"rewards/{place}/std": float(whole.std()) if len(whole) > 1 else math.nan}
    return facts


def _policy(rollout: Rollout) -> dict[str, float]:
    facts = {}
    if rollout.ref_logp is not None:
        facts["kl"] = _mean(estimate_kl(K3(), rollout.old_logp, rollout.ref_logp, rollout.mask)[rollout.mask])
        facts["kl/answer"] = _mean(masked_sum(estimate_kl(K1(), rollout.old_logp, rollout.ref_logp, rollout.mask), rollout.mask))
    if rollout.entropy is not None:
        facts["entropy"] = _mean(rollout.entropy[rollout.mask])
    return facts


def _lengths(rollout: Rollout) -> dict[str, float]:
    lengths, ended = rollout.lengths.double(), rollout.ended != Ended.LENGTH
    return {
        "completions/mean_length": _mean(lengths),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": _mean((~ended).double()),
        "completions/stop_ratio": _mean((rollout.ended == Ended.STOP_STRING).double()),
        "completions/mean_terminated_length": _mean(lengths[ended]),
    }


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else math.nan
