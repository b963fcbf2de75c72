"""Sequence scores from token log-probabilities: sum_t w_t lp_t, sum_t w_t (lp_t - lp_ref_t), sums of token KL, and their lengths.

Every offline objective is built on these, so every objective uses token credit. A weight of None is 1 everywhere.
Sums are float32 or wider whatever the input.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.ops.masked import masked_sum
from finegrain.types import Side


def to_wide(values: Tensor) -> Tensor:
    """float32 for half-precision input, the input otherwise."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def token_weight(side: Side) -> Float[Tensor, "B T"]:
    """w_t on response tokens, 1 where there is no credit, 0 elsewhere."""
    weight = torch.ones_like(to_wide(side.logp)) if side.weight is None else to_wide(side.weight)
    return torch.where(side.mask, weight, 0.0)


def weighted_sum(values: Float[Tensor, "B T"], side: Side) -> Float[Tensor, " B"]:
    """sum_t w_t v_t over the response tokens of a side."""
    values = torch.where(side.mask, to_wide(values), 0.0)
    if side.weight is not None:
        values = values * torch.where(side.mask, to_wide(side.weight), 0.0)
    return values.sum(-1)


def sequence_logp(side: Side) -> Float[Tensor, " B"]:
    """sum_t w_t log pi(y_t), nats."""
    return weighted_sum(side.logp, side)


def reference_logp(side: Side) -> Float[Tensor, " B"]:
    """sum_t w_t log pi_ref(y_t), nats, under the same weights as the policy."""
    if side.ref_logp is None:
        raise ValueError("this objective needs reference log-probabilities; pass a reference, or use a reference-free objective (simpo, cpo, orpo)")
    return weighted_sum(side.ref_logp, side)


def log_ratio(side: Side) -> Float[Tensor, " B"]:
    """sum_t w_t (log pi(y_t) - log pi_ref(y_t)), nats."""
    return sequence_logp(side) - reference_logp(side)


def sequence_kl(side: Side) -> Float[Tensor, " B"]:
    """sum_t w_t KL(reference || policy) over the vocabulary where each token is predicted, nats."""
    if side.reference_kl is None:
        raise ValueError(
            "this objective needs KL(reference || policy) at every position: declare reference_kl in its needs, or give Side.reference_kl"
        )
    return weighted_sum(side.reference_kl, side)


def kept_weight(side: Side) -> Float[Tensor, " B"]:
    """sum_t w_t: response tokens, or the kept weight under token credit; 0 for a row that keeps no token."""
    weight = torch.ones_like(to_wide(side.logp)) if side.weight is None else to_wide(side.weight)
    return masked_sum(weight, side.mask)


def kept_length(side: Side) -> Float[Tensor, " B"]:
    """`kept_weight` as a divisor: 1 for a row that keeps no token, so that sums over it (which are 0) stay 0."""
    length = kept_weight(side)
    return torch.where(length > 0, length, torch.ones_like(length))


def average_logp(side: Side) -> Float[Tensor, " B"]:
    """sum_t w_t log pi(y_t) / sum_t w_t, nats per token."""
    return sequence_logp(side) / kept_length(side)


def average_log_ratio(side: Side) -> Float[Tensor, " B"]:
    """sum_t w_t (log pi(y_t) - log pi_ref(y_t)) / sum_t w_t, nats per token."""
    return log_ratio(side) / kept_length(side)


def implicit_reward(side: Side, *, beta: float) -> Float[Tensor, " B"]:
    """beta times the log-ratio: the reward for which the policy is optimal; detached, for logs and scores."""
    return beta * log_ratio(side).detach()


def token_logps(
    logits: Float[Tensor, "B L V"], labels: Int[Tensor, "B L"], ignore: int = -100
) -> tuple[Float[Tensor, "B L-1"], Bool[Tensor, "B L-1"]]:
    """Log-probabilities of labels 1..L-1 and where they count; logits at position t-1 predict label t.

    Where the label is `ignore` the mask is False and the value is 0.
    """
    targets = labels[:, 1:]
    mask = targets != ignore
    picked = to_wide(logits[:, :-1]).log_softmax(-1).gather(-1, torch.where(mask, targets, 0).unsqueeze(-1)).squeeze(-1)
    return torch.where(mask, picked, 0.0), mask
