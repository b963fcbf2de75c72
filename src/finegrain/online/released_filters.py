"""Weights of PF-PPO's filters as two codes compute them over a buffer, before they draw from it: reference values of `online.select`.

Source: swtheing/PF-PPO-RLHF (`put_weight`, `select_min_max`, `select_max_random`), whose best and worst are those of a prompt; verl
(`compute_pf_ppo_reweight_data`), where they are those of the whole batch and every weight is at least 1e-8, so that any answer can be drawn.
Deviations: none.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from finegrain.online.select import best, worst

Rows = Float[Tensor, " B"]

FLOOR = 1e-8
"""verl's least weight."""


def authors_power(reward: Rows, k: float) -> Rows:
    """|R|^k, not normalised by prompt."""
    return reward.abs() ** k


def authors_best_worst(reward: Rows, group: Int[Tensor, " B"]) -> Rows:
    """1 for the best and the worst answer of each prompt, 0 for others."""
    found = torch.zeros_like(reward)
    for prompt in torch.unique(group):
        rows = (group == prompt).nonzero()[:, 0]
        found[rows[[best(reward[rows]), worst(reward[rows])]]] = 1
    return found


def authors_best_random(reward: Rows, group: Int[Tensor, " B"]) -> Rows:
    """0.4 for the best answer of each prompt, 0.1 for each other: the paper's weights for five answers alone."""
    found = torch.full_like(reward, 0.1)
    for prompt in torch.unique(group):
        rows = (group == prompt).nonzero()[:, 0]
        found[rows[best(reward[rows])]] = 0.4
    return found


def verl_power(reward: Rows, k: float) -> Rows:
    """|R|^k."""
    return authors_power(reward, k).clamp(min=FLOOR)


def verl_best_worst(reward: Rows) -> Rows:
    """1 for the largest and the smallest reward of the batch."""
    return authors_best_worst(reward, torch.zeros_like(reward, dtype=torch.long)).clamp(min=FLOOR)


def verl_best_random(reward: Rows) -> Rows:
    """0.4 for the largest reward of the batch, 0.1 for all others."""
    return authors_best_random(reward, torch.zeros_like(reward, dtype=torch.long)).clamp(min=FLOOR)
