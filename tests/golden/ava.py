"""Adapters of variational inverse RL: AVRIL, AVA-d's special case of given transitions."""

import torch

from finegrain.ops.action_values import RawLogits
from finegrain.ops.variational import gaussian_kl, transition_loss
from tests.golden.given import Adapters, Values, real


def avril(params: Values, inputs: Values) -> Values:
    q, following, reward = (real(inputs[name]).requires_grad_() for name in ("q_values", "q_values_next", "reward_params"))
    actions, after = torch.tensor(inputs["actions"]), torch.tensor(inputs["next_actions"])
    rows, half = torch.arange(len(actions)), reward.shape[1] // 2
    mean, log_std = (reward[:, 0], reward[:, 1]) if params["state_only"] else (reward[rows, actions], reward[rows, half + actions])
    taken = RawLogits()(q, actions)
    loss = transition_loss(taken.logp, taken.q, RawLogits()(following, after).q, mean, log_std, gamma=params["gamma"]).mean()
    grads = torch.autograd.grad(loss, [q, following, reward])
    named = dict(zip(("q_values", "q_values_next", "reward_params"), grads, strict=True))
    return {"loss": loss, "kl_per_transition": gaussian_kl(mean, log_std), "grads": named}


ADAPTERS: Adapters = {"ava": avril}
