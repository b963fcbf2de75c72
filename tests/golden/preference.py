"""Adapters of preference objectives, their credit and their segments."""

import torch
from torch import Tensor

from finegrain.objectives.aot import aot_loss, reference_margin
from finegrain.objectives.apo_down import APODown
from finegrain.objectives.apo_zero import APOZero
from finegrain.objectives.bco import BCO
from finegrain.objectives.conservative import Conservative
from finegrain.objectives.dpo import DPO
from finegrain.objectives.exo import EXO
from finegrain.objectives.hinge import Hinge, hinge_loss
from finegrain.objectives.ipo import IPO, ipo_loss
from finegrain.objectives.ipo_averaged import IPOAveraged
from finegrain.objectives.kto import kto_loss, mismatch_statistics, reference_point
from finegrain.objectives.margins import average_logp_margin, logp_margin
from finegrain.objectives.nca import NCA
from finegrain.objectives.orpo import odds_ratio_bonus
from finegrain.objectives.reference_free import ReferenceFree
from finegrain.objectives.robust import Robust
from finegrain.objectives.selm import SELM
from finegrain.objectives.sigmoid_norm import SigmoidNorm
from finegrain.objectives.simpo import SimPO
from finegrain.objectives.sppo import SPPO
from finegrain.online.clipped import clipped_policy_loss
from finegrain.ops.masked import masked_mean, masked_sum
from finegrain.ops.peaks import dynamic_topk, peak_threshold
from finegrain.ops.segment_scores import keep_mask
from finegrain.ops.sequence import implicit_reward, log_ratio, reference_logp, sequence_logp, token_logps
from finegrain.types import Objective, Pair, Side
from tests.golden.given import Adapters, Values, real


def sequences(logp: object, ref_logp: object) -> Side:
    """Given sequence values as answers of one token."""
    column = real(logp).unsqueeze(-1)
    return Side(logp=column, ref_logp=real(ref_logp).unsqueeze(-1), mask=torch.ones_like(column, dtype=torch.bool))


def gradients(method: Objective, pair: Pair) -> dict[str, Tensor]:
    """Gradients of the batch mean."""
    losses = method(pair)
    assert isinstance(losses, Tensor)
    chosen, rejected = torch.autograd.grad(losses.mean(), [pair.chosen.logp, pair.rejected.logp])
    return {"lp_w": chosen, "lp_l": rejected}


def dpo(params: Values, inputs: Values) -> Values:
    beta, rate = params["beta"], params["label_smoothing"]
    chosen, rejected = (
        Side(logp=real(inputs[f"lp_{s}"]).requires_grad_(), ref_logp=real(inputs[f"lp_ref_{s}"]), mask=torch.tensor(inputs[f"m_{s}"]).bool())
        for s in "wl"
    )
    pair = Pair(sides={"chosen": chosen, "rejected": rejected})
    methods: dict[str, Objective] = {
        "dpo_sigmoid": DPO(beta=beta),
        "cdpo_label_smoothing": Conservative(beta=beta, label_smoothing=rate),
        "dpo_reference_free": ReferenceFree(beta=beta),
        "ipo_summed_official": IPO(beta=beta),
        "trl_ipo_length_normalised": IPOAveraged(beta=beta),
        "trl_robust": Robust(beta=beta, label_smoothing=rate),
        "trl_hinge": Hinge(beta=beta),
        "trl_exo_pair": EXO(beta=beta, epsilon=rate),
        "trl_nca_pair": NCA(beta=beta),
        "trl_bco_pair": BCO(beta=beta),
        "trl_sppo_hard": SPPO(beta=beta),
        "trl_apo_zero": APOZero(beta=beta),
        "trl_apo_down": APODown(beta=beta),
        "trl_sigmoid_norm": SigmoidNorm(beta=beta),
        "simpo_beta2": SimPO(beta=params["simpo_beta"], gamma=params["simpo_gamma"]),
        "cpo_sigmoid_term": ReferenceFree(beta=beta),
    }
    good, bad = log_ratio(chosen), log_ratio(rejected)
    mismatched = mismatch_statistics(sequences(inputs["kto_KL_logps"], inputs["kto_KL_ref_logps"]))
    z0 = reference_point(mismatched["mismatched_log_ratio"].value, mismatched["mismatched_rows"].value)
    yes, no = torch.ones_like(good).bool(), torch.zeros_like(bad).bool()
    weight = (params["kto_desirable_weight"], params["kto_undesirable_weight"])
    kto_rows = [kto_loss(good, yes, z0, beta=beta, weight=weight), kto_loss(bad, no, z0, beta=beta, weight=weight)]
    logp, mask = token_logps(real(inputs["logits"]), torch.tensor(inputs["labels"]))
    return {
        **{name: method(pair) for name, method in methods.items()},
        "chosen_reward": implicit_reward(chosen, beta=beta),
        "rejected_reward": implicit_reward(rejected, beta=beta),
        "trl_aot": aot_loss(logp_margin(pair), reference_margin(pair), beta=beta, label_smoothing=rate),
        "trl_aot_unpaired": aot_loss(good, bad, beta=beta, label_smoothing=rate),
        "slic_hinge_term_no_ref": hinge_loss(logp_margin(pair), beta=beta),
        "cpo_ipo_avg_no_ref": ipo_loss(average_logp_margin(pair), beta=beta),
        "orpo_beta_logsigmoid_logodds_fp32": odds_ratio_bonus(pair, beta=beta),
        "kto_kl": z0,
        "kto_desirable_unweighted": kto_loss(good, yes, z0, beta=beta),
        "kto_undesirable_unweighted": kto_loss(bad, no, z0, beta=beta),
        "kto_mean_loss_dw1_uw1.33": torch.cat(kto_rows).mean(),
        "get_batch_logps_sum": masked_sum(logp, mask),
        "get_batch_logps_mean": masked_mean(logp, mask),
        "grads": {name: gradients(method, pair) for name, method in methods.items()},
    }


def adpo(params: Values, inputs: Values) -> Values:
    count, beta = params["n_pairs"], params["beta"]
    logp, ref_logp, mask = real(inputs["lp"]).requires_grad_(), real(inputs["lp_ref"]), torch.tensor(inputs["response_mask"]).bool()
    positive = torch.arange(len(mask)).unsqueeze(-1) < count
    keep = keep_mask(real(inputs["token_reward"]), mask, positive, params["baseline"])

    def side(rows: slice) -> Side:
        return Side(logp=logp[rows], ref_logp=ref_logp[rows], mask=mask[rows], weight=keep[rows].double())

    every, chosen, rejected = side(slice(None)), side(slice(count)), side(slice(count, None))
    loss = Conservative(beta=beta, label_smoothing=params["label_smoothing"])(Pair(sides={"chosen": chosen, "rejected": rejected})).mean()
    return {
        "keep_mask": keep.int(),
        "policy_sums": sequence_logp(every),
        "ref_sums": reference_logp(every),
        "loss": loss,
        "chosen_rewards": implicit_reward(chosen, beta=beta),
        "rejected_rewards": implicit_reward(rejected, beta=beta),
        "grads": {"lp": torch.autograd.grad(loss, logp)[0]},
    }


def appo(params: Values, inputs: Values) -> Values:
    logp, advantages = real(inputs["lp"]).requires_grad_(), real(inputs["advantages"])
    keep = keep_mask(real(inputs["token_value"]), torch.tensor(inputs["response_mask"]).bool(), advantages >= 0, params["baseline"])
    term = clipped_policy_loss(logp, real(inputs["lp_old"]), advantages, keep, clip=params["clip"])
    loss = term.value.sum() / term.count.sum()
    return {"keep_mask": keep.int(), "loss": loss, "grads": {"lp": torch.autograd.grad(loss, logp)[0]}}


def asr(params: Values, inputs: Values) -> Values:
    return adpo(params, inputs) if "n_pairs" in params else appo(params, inputs)


def dynamic(params: Values, inputs: Values) -> Values:
    scores, q = real([inputs["scores"]]), float(params["std_factor"])
    everywhere = torch.ones_like(scores).bool()
    mask = dynamic_topk(scores, everywhere, q)[0]
    return {"indices": mask.nonzero().flatten(), "k": mask.sum(), "threshold": peak_threshold(scores, everywhere, q)[0], "mask": mask.int()}


def selm(params: Values, inputs: Values) -> Values:
    names = {"chosen": "chosen", "rejected": "rejected", "generated": "response"}
    sides = {role: sequences(inputs[f"logp_{name}"], inputs[f"ref_logp_{name}"]) for role, name in names.items()}
    for side in sides.values():
        side.logp.requires_grad_()
    losses = SELM(beta=params["beta"], alpha=params["alpha"])(Pair(sides=sides))
    slopes = torch.autograd.grad(losses.mean(), [side.logp for side in sides.values()])
    rewards = {f"{role}_reward": implicit_reward(sides[role], beta=params["beta"]) for role in ("chosen", "rejected")}
    return {"loss": losses, **rewards, "grads": {"loss": {f"logp_{name}": slope[:, 0] for name, slope in zip(names.values(), slopes, strict=True)}}}


ADAPTERS: Adapters = {
    "asr": asr,
    "dpo": dpo,
    "dynamic-topk": dynamic,
    "selm": selm,
}
