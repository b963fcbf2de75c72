"""Adapters of online reinforcement learning: PPO and its relatives as TRL, verl and OpenRLHF run them, and macro actions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finegrain.online.aggregate import Aggregate, SeqMeanTokenMean, SeqMeanTokenSum, SeqMeanTokenSumNorm, TokenMean
from finegrain.online.combine import NormaliseThenSum, standardise_rows
from finegrain.online.gae import CarryAcross, Returns, RunThrough, carry_advantages, gae
from finegrain.online.groups import BatchStd, GreedyBaseline, GroupMean, GroupNorm, LeaveOneOut, LengthWeighted
from finegrain.online.leash import K1, K2, K3, Abs, Free, InLoss, InReward, Leash, estimate_kl
from finegrain.online.macro import EqualShares, GivenSegments, MacroGAE, PositionShares, Windows, cut_macros, estimate_macros
from finegrain.online.pama import PAMA, ToReference, find_pareto_point
from finegrain.online.policy_loss import PolicyLoss, SharedCritic
from finegrain.online.released_filters import (
    authors_best_random,
    authors_best_worst,
    authors_power,
    verl_best_random,
    verl_best_worst,
    verl_power,
)
from finegrain.online.rollout import Rollout
from finegrain.online.stages import Advantage, Stages, Update, compute_update
from finegrain.online.surrogates import Cispo, Clip, PlainRatio, SequenceRatio, Surrogate, TokenLoss, log_ratio
from finegrain.online.token_rewards import place_behind_end
from finegrain.online.transforms import Transforms
from finegrain.online.value_loss import value_losses
from finegrain.online.whiten import Unwhitened, Whitening, WhitenUnbiased, moments
from finegrain.ops.text_segmenters import BeforeRise, Perplexity
from finegrain.types import Pair, SampledTokens, Side, Terms
from tests.golden.given import Adapters, Values, real

CASES = json.loads((Path(__file__).parent / "ppo-rlhf.json").read_text())["cases"]
DRIFT = next(case["inputs"] for case in CASES if case["name"] == "policy_loss/verl dual-clip")
"""What the case without inputs of its own is given."""


def total(terms: Terms) -> Tensor:
    return torch.stack([term.coefficient * term.value.sum() / term.count.sum() for term in terms.values()]).sum()


def mean(aggregate: Aggregate, losses: Tensor, mask: Tensor) -> Tensor:
    return total({"": aggregate(losses, mask.to(losses.dtype))})


def slope(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of, retain_graph=True)[0]


def masked(inputs: Values) -> Tensor:
    return torch.tensor(inputs["mask"]).bool()


def rollout(rewards: Tensor, mask: Tensor, size: int, **known: Any) -> Rollout:
    """Groups of `size` answers in a row, with rewards of whole answers alone."""
    zeros = torch.zeros(mask.shape, dtype=torch.float64)
    return Rollout(
        **{"group": torch.arange(len(mask)) // size, "old_logp": zeros, "ended": torch.ones(len(mask), dtype=torch.long), **known},
        mask=mask,
        sequence=rewards if rewards.ndim == 2 else rewards[:, None],
        tokens=zeros[..., None].expand(*mask.shape, 1 if rewards.ndim == 1 else rewards.shape[1]),
    )


def lengths_mask(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def estimated(params: Values, inputs: Values) -> Values:
    rewards, values, mask = real(inputs["token_rewards"]), real(inputs["values"]), masked(inputs)
    gamma, lam = params["gamma"], params["lam"]
    if bool(mask.flip(1).cummax(1).values.eq(mask.flip(1)).all()):  # without a hole: OpenRLHF's
        return RunThrough()(rewards, values, mask, gamma, lam)._asdict()
    carried = carry_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    assert torch.equal(CarryAcross()(rewards, values, mask, gamma, lam).advantages[mask], carried[mask])
    return {"advantages_whitened": moments(carried, mask).whiten(carried), "returns": carried + values}


def whitened(params: Values, inputs: Values) -> Values:
    x, mask = real(inputs["x"]), masked(inputs)
    found = moments(x, mask)
    return {"shift_mean_true": found.whiten(x), "shift_mean_false": found.whiten(x, keep_mean=True), "masked_var": found.variance}


def policy(params: Values, inputs: Values) -> Values:
    given = inputs if "logp" in inputs else DRIFT
    logp, old, advantages, mask = real(given["logp"]).requires_grad_(), real(given["old_logp"]), real(given["advantages"]), masked(given)
    low, high = params["eps_low"], params["eps_high"]
    length = mask.shape[1]

    def losses(surrogate: Surrogate) -> TokenLoss:
        return surrogate(logp, old, advantages, mask)

    dual, plain = losses(Clip(low=low, high=high, dual=params["dual_clip_c"])), losses(Clip(low=low, high=high)).loss
    sequence = mean(SeqMeanTokenMean(), losses(SequenceRatio(low=low, high=high, gradient=PlainRatio())).loss, mask)
    token_mean, undual = mean(TokenMean(), dual.loss, mask), mean(TokenMean(), plain, mask)
    share = lambda found: mean(TokenMean(), found.double(), mask)
    divided = SeqMeanTokenSumNorm(length=length)(dual.loss, mask.double())
    return {
        "loss": token_mean,
        "dual": token_mean,
        "plain": undual,
        "loss_token_mean_no_dual": undual,
        "loss_seqmean_dual": mean(SeqMeanTokenMean(), dual.loss, mask),
        "gspo_loss": sequence,
        "clipfrac": share(dual.low | dual.high),
        "clipfrac_lower": share(dual.dual),
        "ppo_kl": -share(log_ratio(logp, old, mask)),
        "loss_agg=seq-mean-token-sum": mean(SeqMeanTokenSum(), dual.loss, mask),
        "loss_agg=seq-mean-token-mean": mean(SeqMeanTokenMean(), dual.loss, mask),
        "loss_agg=seq-mean-token-sum-norm": divided.value.sum() / length,  # verl's is no mean over answers
        "grads": {
            "logp": slope(token_mean, logp),
            "logp_dual": slope(token_mean, logp),
            "logp_plain": slope(undual, logp),
            "logp_token_mean_no_dual": slope(undual, logp),
            "logp_gspo": slope(sequence, logp),
        },
    }


def values_loss(params: Values, inputs: Values) -> Values:
    values, returns, old, mask = real(inputs["vpred"]).requires_grad_(), real(inputs["returns"]), real(inputs["old_values"]), masked(inputs)
    clipped, free = (
        mean(TokenMean(), value_losses(values[..., None], returns[..., None], old[..., None], clip), mask) for clip in (params["value_clip"], None)
    )
    return {"verl": clipped, "openrlhf": clipped, "openrlhf_unclipped": free, "grads": {"vpred_verl": slope(clipped, values)}}


def estimators(params: Values, inputs: Values) -> Values:
    logp, ref, mask = real(inputs["logp"]).requires_grad_(), real(inputs["ref_logp"]), masked(inputs)
    known = {"k1": K1(), "k2": K2(), "k3": K3(limit=10.0), "abs": Abs()}
    grads = {f"{name}_sum_masked": slope(estimate_kl(estimator, logp, ref, mask).sum(), logp) for name, estimator in known.items()}
    return {**{name: estimator(logp, ref) for name, estimator in known.items()}, "grads": grads}


def token_reward(params: Values, inputs: Values) -> Values:
    mask, kl = masked(inputs), real(inputs["kl"])
    low, high = params["reward_clip"]
    known = rollout(real(inputs["R"]), mask, 1, old_logp=kl, ref_logp=torch.zeros_like(kl))
    stages = Stages(transforms=Transforms(clip=(low, high)), leash=InReward(beta=params["kl_coef"]), advantage=Returns())
    found = compute_update(known, stages, stages.start()).rewards.total
    outside = estimate_kl(K1(), kl, torch.zeros_like(kl), ~mask)  # theirs lowers padding too
    return {"token_reward": found - params["kl_coef"] * outside}


def trl_step(params: Values, inputs: Values) -> Values:
    old, ref, new = (real(inputs[name]) for name in ("old_logp", "ref_logp", "new_logp"))
    mask = torch.arange(old.shape[1]) <= torch.tensor(inputs["last_token_index"])[:, None]
    behind = place_behind_end(real(inputs["score"]), mask)
    clean = lambda values: torch.where(behind.mask, real(values), 0.0)[..., None]
    values, predicted = clean(inputs["values"]), clean(inputs["vpred"])
    rewards = behind.rewards - params["kl_coef"] * estimate_kl(K1(), old, ref, mask)
    found = gae(rewards, values[..., 0], behind.mask, gamma=params["gamma"], lam=params["lam"])
    advantages = WhitenUnbiased()(found.advantages, mask)
    clip = Clip(low=params["cliprange"], high=params["cliprange"])
    terms = {
        "pg_loss": TokenMean()(clip(new, old, advantages, mask).loss, mask.double()),
        "vf_loss": TokenMean()(value_losses(predicted, found.returns[..., None], values, params["cliprange_value"]), behind.mask.double()),
    }
    return {
        "rewards": rewards,
        "advantages": advantages,
        "returns": found.returns,
        **{name: total({name: term}) for name, term in terms.items()},
        "loss": total({**terms, "vf_loss": replace(terms["vf_loss"], coefficient=params["vf_coef"])}),
    }


def compute(known: Rollout, advantage: Advantage, whitening: Whitening, leash: Leash | None = None, greedy: Tensor | None = None) -> Update:
    stages = Stages(advantage=advantage, whitening=whitening, leash=Free() if leash is None else leash)
    return compute_update(known, stages, stages.start(), greedy=greedy)


def groups(params: Values, inputs: Values) -> Values:
    score, mask = real(inputs["score"]), lengths_mask(inputs["lengths"])
    known = rollout(score, mask, params["num_generations"])

    def tokens(advantage: Advantage, whitening: Whitening | None = None, greedy: Tensor | None = None) -> Tensor:
        return compute(known, advantage, Unwhitened() if whitening is None else whitening, greedy=greedy).advantage

    row = lambda advantage: tokens(advantage)[:, 0]
    return {
        "grpo": row(GroupNorm(epsilon=1e-6)),
        "dr_grpo_no_std": row(GroupMean()),
        "rloo": row(LeaveOneOut()),
        "opo": row(LengthWeighted()),
        "reinforce_pp_baseline (B,T)": tokens(GroupMean(), WhitenUnbiased()),
        "reinforce_pp (B,T)": tokens(Returns(gamma=params["gamma"]), WhitenUnbiased()),
        "remax (B,T), baseline 0.1": tokens(GreedyBaseline(), greedy=torch.full_like(score, 0.1)),
        "trl_grpo_group": row(GroupNorm()),
        "trl_grpo_batch": row(GroupNorm(scale=BatchStd())),
        "trl_grpo_none": row(GroupMean()),
    }


def several_rewards(params: Values, inputs: Values) -> Values:
    mask, size = masked(inputs), params["num_generations"]
    logps = {name: real(inputs[name]) for name in ("old_logp", "ref_logp")}
    known = rollout(real(inputs["rewards_per_func"]), mask, size, weights=tuple(params["weights"]), **logps)
    normalised = Stages(combination=NormaliseThenSum(), advantage=GroupMean())
    rloo = compute(known, LeaveOneOut(), Unwhitened(), InReward(beta=params["rloo_beta"])).advantage[:, 0]
    return {
        "sum_then_normalize": compute(known, GroupNorm(), Unwhitened()).advantage[:, 0],
        "normalize_then_sum": compute_update(known, normalised, normalised.start()).advantage[:, 0],
        "rloo_kl_in_reward": rloo,
        "rloo_normalised": standardise_rows(rloo, torch.ones_like(rloo).bool(), 1e-4)[0],
    }


def grpo_loss(params: Values, inputs: Values) -> Values:
    logp, old, ref, mask = real(inputs["logp"]).requires_grad_(), real(inputs["old_logp"]), real(inputs["ref_logp"]), masked(inputs)
    advantage = torch.where(mask, real(inputs["advantages"])[:, None], 0.0)
    pair = Pair(sides={"answer": Side(logp=logp, ref_logp=ref, mask=mask, sampled=SampledTokens(old, advantage))})
    low, high = params["eps_low"], params["eps_high"]
    clip, leash = Clip(low=low, high=high), InLoss(beta=params["beta"], corrected=params["use_bias_correction_kl"])

    def loss(aggregate: Aggregate, surrogate: Surrogate = clip, leash: Leash = leash) -> Tensor:
        return total(PolicyLoss(surrogate=surrogate, aggregate=aggregate, leash=leash)(pair))

    by_answer, by_token = loss(SeqMeanTokenMean()), loss(TokenMean())
    return {
        "grpo": by_answer,
        "bnpo": by_token,
        "dapo": by_token,
        "dr_grpo": loss(SeqMeanTokenSumNorm(length=params["max_completion_length"])),
        "cispo": loss(TokenMean(), Cispo(largest=params["cispo_eps_high"])),
        "gspo (grpo, level=sequence, beta=0)": loss(SeqMeanTokenMean(), SequenceRatio(low=low, high=high), Free()),
        "grpo_no_kl_bias_correction": loss(SeqMeanTokenMean(), leash=InLoss(beta=params["beta"], corrected=False)),
        "grads": {"grpo": slope(by_answer, logp), "dapo": slope(by_token, logp)},
    }


READERS = {
    "token_rewards": estimated,
    "x": whitened,
    "vpred": values_loss,
    "kl": token_reward,
    "lengths": groups,
    "rewards_per_func": several_rewards,
}


def ppo_rlhf(params: Values, inputs: Values) -> Values:
    if "last_token_index" in inputs:
        return trl_step(params, inputs)
    if "beta" in params:
        return grpo_loss(params, inputs)
    if "dual_clip_c" in params:
        return policy(params, inputs)
    return next((read for name, read in READERS.items() if name in inputs), estimators)(params, inputs)


def ma_rlhf(params: Values, inputs: Values) -> Values:
    row = {name: real([inputs[name]]) for name in ("lp_old", "lp_ref", "lp_new", "values_old", "values_new")}
    mask = torch.tensor([inputs["mask"]]).bool()
    segment = None if inputs["ppl"] is None else Perplexity(start=BeforeRise())(real([inputs["ppl"]]), mask)
    macro = MacroGAE(
        termination={"fixed": Windows(size=params["n"] or 1), "ppl": GivenSegments()}[params["termination"]],
        shares={"equal": EqualShares(), "position": PositionShares()}[params["value_function"]],
        gamma=params["gamma"],
        lam=params["lam"],
    )
    clip = params["reward_clip"]
    stages = Stages(transforms=Transforms(clip=(-clip, clip)), leash=InReward(beta=params["kl_coef"]), advantage=macro)
    known = rollout(
        real([inputs["R"]]), mask, 1, old_logp=row["lp_old"], ref_logp=row["lp_ref"], values=row["values_old"][..., None], segment=segment
    )
    update = compute_update(known, stages, stages.start())
    ids = cut_macros(macro.termination, known)
    macros = estimate_macros(macro, update.rewards.total, update.rewards.values, ids)
    logp, values = row["lp_new"].requires_grad_(), row["values_new"].requires_grad_()
    side = Side(
        logp=logp,
        mask=mask,
        values=values[..., None],
        sampled=SampledTokens(row["lp_old"], update.advantage, update.returns, row["values_old"][..., None]),
    )
    loss = PolicyLoss(surrogate=Clip(low=params["clip"], high=params["clip"]), critic=SharedCritic(coefficient=1.0, clip=params["value_clip"]))
    terms = loss(Pair(sides={"answer": side}))
    actor, critic = (total({name: terms[name]}) for name in ("policy", "value"))
    return {
        "boundaries": [ids[0].tolist().index(number) for number in range(int(ids.max()) + 1)],
        "macro_lengths": ids[0].bincount(),
        "token_reward": update.rewards.total[0],
        "macro_value": macros.values[0],
        "macro_reward": macros.rewards[0],
        "macro_advantage": macros.advantages[0],
        "macro_return": (macros.advantages + macros.values)[0],
        "actor_loss": actor,
        "critic_loss": critic,
        "grads": {"lp_new": slope(actor, logp)[0], "values_new": slope(critic, values)[0]},
    }


def pf_ppo(params: Values, inputs: Values) -> Values:
    reward, prompt, power = real(inputs["reward"]), torch.tensor(inputs["prompt_id"]), params["weight_pow"]
    return {
        "official_pow": authors_power(reward, power),
        "official_BW": authors_best_worst(reward, prompt),
        "official_BR": authors_best_random(reward, prompt),
        "verl_pow": verl_power(reward, power),
        "verl_max_min_global": verl_best_worst(reward),
        "verl_max_random_global": verl_best_random(reward),
    }


def pama(params: Values, inputs: Values) -> Values:
    advantages, mask = real(inputs["advantages_multi"]), masked(inputs)
    clip = Clip(high=params["clip_ratio"])
    gated = PAMA(ratio=ToReference()).gate(advantages, real(inputs["old_logp"]), real(inputs["ref_logp"]), mask, clip)
    means = gated[mask].mean(0)
    return {
        "objective_scalars_I": means,
        "s_star_of_I": find_pareto_point(means).scalar,
        "s_star_of_scalars": find_pareto_point(real(inputs["scalars"])).scalar,
    }


ADAPTERS: Adapters = {"ppo-rlhf": ppo_rlhf, "ma-rlhf": ma_rlhf, "pf-ppo": pf_ppo, "pama": pama}
