"""Adapter of bi-factorial preference optimisation."""

from finegrain.objectives.bfpo import BFPO
from finegrain.ops.sequence import implicit_reward
from finegrain.types import Pair
from tests.golden.given import Adapters, Values, real
from tests.golden.preference import gradients, sequences


def bfpo(params: Values, inputs: Values) -> Values:
    method = BFPO(beta=params["beta_tau"], b1=float(params["b1"]), alpha=params["alpha"])
    sides = {role: sequences(inputs[f"logp_{role}"], inputs[f"ref_logp_{role}"]) for role in ("chosen", "rejected")}
    for side in sides.values():
        side.logp.requires_grad_()
    pair = Pair(sides=sides, columns={name: real(inputs[name]) for name in ("is_chosen_safe", "is_rejected_safe")})
    slopes = gradients(method, pair)
    return {
        "loss": method(pair),
        **{f"{role}_reward": implicit_reward(side, beta=method.beta) for role, side in sides.items()},
        "grads": {"loss": {"logp_chosen": slopes["lp_w"][:, 0], "logp_rejected": slopes["lp_l"][:, 0]}},
    }


ADAPTERS: Adapters = {"bfpo": bfpo}
