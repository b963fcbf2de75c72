"""Adapter of gradient entanglement: the toy language model of the reference, and the extra losses."""

import torch
from torch import Tensor

from finegrain.objectives.dpop import DPOP
from finegrain.objectives.r_dpo import RDPO
from finegrain.objectives.rrhf import RRHF
from finegrain.objectives.sppo import target_distances
from finegrain.ops.gradients import compare_gradients, gradient_of, token_cosines, token_gram
from finegrain.ops.sequence import token_logps
from finegrain.types import Pair, Side
from tests.golden.given import Adapters, Values, real


def toy_logps(embedding: Tensor, output: Tensor, ids: list[int], prompt: int) -> Tensor:
    """Log-probabilities of the answer's tokens: logits at t are the mean embedding of ids 0..t times the transposed output matrix."""
    given = torch.tensor([ids])
    states = embedding[given].cumsum(1) / torch.arange(1, len(ids) + 1)[:, None]
    return token_logps(states @ output.T, given)[0][0, prompt - 1 :]


def spread(total: float, length: int, width: int) -> list[float]:
    """A sequence value over its tokens."""
    return [total / length] * length + [0.0] * (width - length)


def given_pair(inputs: Values) -> Pair:
    """Given sequence values, spread evenly over answers of the given lengths."""
    width = max(*inputs["len_w"], *inputs["len_l"])
    sides = {}
    for role, mark in (("chosen", "w"), ("rejected", "l")):
        lengths = inputs[f"len_{mark}"]
        rows = {
            name: real([spread(total, length, width) for total, length in zip(inputs[f"{name}_{mark}"], lengths, strict=True)])
            for name in ("logp", "ref_logp")
        }
        sides[role] = Side(**rows, mask=torch.arange(width) < torch.tensor(lengths)[:, None])
    return Pair(sides=sides)


def entanglement(params: Values, inputs: Values) -> Values:
    parameters = [real(inputs[name]).requires_grad_() for name in ("E", "W")]
    chosen, rejected = (toy_logps(*parameters, inputs[f"ids_{mark}"], params["prompt_len"]) for mark in "wl")
    found = compare_gradients(gradient_of(chosen.sum(), parameters), gradient_of(rejected.sum(), parameters))
    pair, beta = given_pair(inputs), params["beta"]
    return {
        "inner_product": found.inner,
        "norm_w": found.chosen_norm,
        "norm_l": found.rejected_norm,
        "cosine": found.cosine,
        "condition_ratio_exact": found.condition_ratio,
        "token_cosine": token_cosines(*token_gram(chosen, rejected, parameters)),
        "logp_w": chosen.sum(),
        "logp_l": rejected.sum(),
        "rdpo_loss": RDPO(beta=beta, alpha=params["rdpo_alpha"])(pair),
        "pdpo_loss": DPOP(beta=beta, penalty=float(params["pdpo_lambda"]))(pair),
        "sppo_loss": torch.stack(target_distances(pair, beta=beta)).mean(0),
        "rrhf_loss": RRHF()(pair)["ranking"].value,
    }


ADAPTERS: Adapters = {"gradient-entanglement": entanglement}
