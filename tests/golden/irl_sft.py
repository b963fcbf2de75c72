"""Adapters of reward learning from demonstrations."""

import torch

from finegrain.objectives.irl_sft import IRLSFT, HingeLink, LinearLink, LogisticLink
from finegrain.ops.readout import last_value
from finegrain.ops.sequence import implicit_reward
from finegrain.rewards.irl_sft import aligned_loss, released_range
from finegrain.types import Pair
from tests.golden.given import Adapters, Values, real
from tests.golden.preference import gradients, sequences

LINKS = {"irft_logistic_loss": LogisticLink(), "irft_linear_loss": LinearLink(), "irft_hinge_loss": HingeLink()}


def irl_sft(params: Values, inputs: Values) -> Values:
    real_side, generated = (sequences(inputs[f"logp_{name}"], inputs[f"ref_logp_{name}"]) for name in ("real", "generated"))
    for side in (real_side, generated):
        side.logp.requires_grad_()
    pair = Pair(sides={"chosen": real_side, "rejected": generated})
    outputs: Values = {f"{name}_reward": implicit_reward(side, beta=params["beta"]) for name, side in (("real", real_side), ("generated", generated))}
    grads: Values = {}
    for name, link in LINKS.items():
        objective = IRLSFT(beta=params["beta"], link=link)
        outputs[name] = objective(pair)
        slopes = gradients(objective, pair)
        grads[name] = {"logp_real": slopes["lp_w"][:, 0], "logp_generated": slopes["lp_l"][:, 0]}
    chosen, rejected = (real(inputs[f"{role}_token_rewards"]).requires_grad_() for role in ("chosen", "rejected"))
    counted = released_range(torch.tensor(inputs["chosen_ids"]), torch.tensor(inputs["rejected_ids"]), params["pad_id"])
    loss = (real(inputs["pair_weight"]) * aligned_loss(chosen, rejected, counted)).sum()
    slopes_of = dict(zip(("chosen_token_rewards", "rejected_token_rewards"), torch.autograd.grad(loss, [chosen, rejected]), strict=True))
    everywhere = torch.ones_like(counted)
    ends = {f"rm_{role}_end": last_value(values, everywhere) for role, values in (("chosen", chosen), ("rejected", rejected))}
    return {**outputs, "rm_loss": loss, **ends, "grads": {**grads, "rm_loss": slopes_of}}


ADAPTERS: Adapters = {"irl-sft": irl_sft}
