"""Adapters of evaluation, of losses of reward heads and of token rewards from a sequence reward."""

import numpy as np
import torch
from torch import Tensor

from finegrain.credit.abc import ABC, HeadMean, generation_rows, last_row, normalise_attention, shift_shares
from finegrain.credit.r3hf import R3HF, FromPrompt, penalise_kl, prefix_differences
from finegrain.evaluate.reward_comparison import cosine, euclidean, kendall, pearson, sign_accuracy, sign_f1, spearman
from finegrain.evaluate.rewardbench import leaderboard_score, prior_score, section_scores
from finegrain.evaluate.rewardbench2 import best_of_credit, ties_prompt, ties_score
from finegrain.ops.masked import masked_sum
from finegrain.ops.readout import Last, Mean, NegativeNorm, Readout, Sum
from finegrain.ops.sari import sari, sari_parts
from finegrain.ops.sequence import token_logps
from finegrain.ops.stats import Interval
from finegrain.rewards.irl_insights import Hinge, Logistic, MaxMargin, RankingLoss, Squared
from finegrain.rewards.lort import target_loss
from finegrain.rewards.mm_calibration import detect
from finegrain.rewards.targets import SmoothedTarget
from tests.golden.given import Adapters, Values, real

LOSSES: dict[str, RankingLoss] = {"max_margin": MaxMargin(), "hinge": Hinge(), "logistic": Logistic(), "squared": Squared()}
READOUTS: dict[str, Readout] = {"sum": Sum(), "avg": Mean(), "average": Mean(), "norm": NegativeNorm()}


def shares(accuracies: dict[str, float]) -> dict[str, Interval]:
    """Accuracies without intervals."""
    return {name: Interval(value, None, None, 0) for name, value in accuracies.items()}


def rewardbench(params: Values, inputs: Values) -> Values:
    if "logits" in inputs:
        logp, mask = token_logps(real(inputs["logits"]), torch.tensor(inputs["labels"]))
        mode = params.get("mode") or params["function"].rpartition(" ")[2]
        return {"score": READOUTS.get(mode, Sum())(logp, mask)}
    if "rows" in inputs:
        rows = [ties_prompt(row["id"], row["num_correct"], row["scores"]) for row in inputs["rows"]]
        return {"overall": ties_score(rows).score.mean}
    if "scores_per_prompt_first_is_correct" in inputs:
        credit = best_of_credit(inputs["scores_per_prompt_first_is_correct"])
        return {"results": credit, "accuracy": credit.mean()}
    sections = section_scores(shares(inputs["subset_accuracy"]))
    prior = prior_score(shares(inputs.get("prior_sets", {})))
    return {
        "sections": {name: share.mean for name, share in sections.items()},
        "prior_sets": prior and prior.mean,
        "leaderboard_average_with_prior": leaderboard_score(sections, prior).mean,
        "leaderboard_average_without_prior": leaderboard_score(sections).mean,
    }


def irl_insights(params: Values, inputs: Values) -> Values:
    if "true_rewards" in inputs:
        a, b = np.array(inputs["true_rewards"]), np.array(inputs["learned_rewards"])
        measures = {"pearson": pearson, "spearman": spearman, "kendall_tau": kendall, "euclidean": euclidean, "cosine": cosine}
        found = {name: measure(a, b) for name, measure in measures.items()}
        return {**found, "accuracy": sign_accuracy(a, b), "f1_toxic_positive": sign_f1(a, b)}
    expert, other = (real(inputs[f"reward_{name}"]).requires_grad_() for name in ("expert", "other"))
    loss = LOSSES[params["loss_type"]](expert, other)
    gradients = torch.autograd.grad(loss.sum(), [expert, other])
    return {"loss_per_pair": loss, "grads": dict(zip(("reward_expert", "reward_other"), gradients, strict=True))}


def mm_calibration(params: Values, inputs: Values) -> Values:
    found = detect(real(inputs["original_logits"]), real(inputs["clipped_logits"]), params["threshold"])
    return {"final": found.logits, "predicted": found.predicted}


def lort(params: Values, inputs: Values) -> Values:
    logits = real(inputs["logits"]).requires_grad_()
    targets = SmoothedTarget(smoothing=params["label_smooth"])(torch.tensor(inputs["targets"]), params["K"])
    loss = target_loss(logits, targets).mean()
    return {"loss": loss, "grads": {"logits": torch.autograd.grad(loss, logits)[0]}}


def r3hf(params: Values, inputs: Values) -> Values:
    every, mask = real(inputs["rm_scores_all_positions"]), torch.tensor(inputs["response_mask"])
    values, empty = every[:, params["prompt_len"] :], every[:, params["prompt_len"] - 1]
    tokens = prefix_differences(values, empty, mask, FromPrompt())
    combined = R3HF(share=params["beta_c"])(values, empty, mask)
    return {
        "token_reward": tokens,
        "sequence_reward": Last()(values, mask),
        "combined_reward": combined,
        "final_reward": penalise_kl(combined, real(inputs["lp"]), real(inputs["lp_ref"]), mask, beta=params["beta"]),
        "sum_token_reward": masked_sum(tokens, mask),
        "empty_response_score": empty,
    }


def steps(rows: list[Values], prompt: int, length: int) -> Tensor:
    """The attention rows of generation steps 1, 2 ... in one (1, H, T, T) block of the answer's columns."""
    block = torch.zeros(1, len(rows[0]), length, length, dtype=torch.float64)
    for step, row in enumerate(rows, 1):
        block[0, :, step, :step] = real(row)[:, prompt : prompt + step]
    return block


def abc(params: Values, inputs: Values) -> Values:
    prompt, length = params["query_len"], params["response_len"]
    mask = torch.ones(1, length, dtype=torch.bool)
    if "step_attention_last_layer_heads" in inputs:
        attention = steps(inputs["step_attention_last_layer_heads"], prompt, length)
        last = normalise_attention(HeadMean()(attention)[:, -1], mask)
        return {"alpha_abcd_average": generation_rows(attention, mask, HeadMean())[0], "alpha_abcd_last_only": shift_shares(last, mask)[0]}
    row, total = real([inputs["attention_last_layer"]])[:, :, -1, prompt:], real([inputs["rm_score"]])
    reward = ABC(share=params["beta"])(row, total, mask)
    return {"alpha": last_row(row, mask, HeadMean())[0], "reward": reward[0], "reward_sum": reward.sum()}


def text_simplification(params: Values, inputs: Values) -> Values:
    texts = inputs["source"], inputs["candidate"], inputs["references"]
    parts = sari_parts(*texts, longest=params["max_n"])
    return {"keep_delprec_add_per_n": [list(one) for one in parts], "sari": sari(*texts, longest=params["max_n"])}


ADAPTERS: Adapters = {
    "abc": abc,
    "irl-insights": irl_insights,
    "lort": lort,
    "mm-calibration": mm_calibration,
    "r3hf": r3hf,
    "rewardbench": rewardbench,
    "text-simplification": text_simplification,
}
