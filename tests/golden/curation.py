"""Adapters of methods for noisy preference data: the pair loss with a floor and a language term."""

import torch

from finegrain.evaluate.accuracy import pair_accuracy
from finegrain.ops.sequence import token_logps
from finegrain.rewards.secrets_rm import SecretsRM
from finegrain.rewards.sequence import Sequence
from finegrain.types import Pair, Side
from tests.golden.given import Adapters, Values, real


def secrets_rm(params: Values, inputs: Values) -> Values:
    rewards = real(inputs["rewards"]).requires_grad_()
    count = len(rewards) // 2
    leaves = {"rewards": rewards}
    logp, mask = torch.zeros(count, 1), torch.ones(count, 1).bool()
    if params["lm_loss_factor"]:
        leaves["lm_logits"] = real(inputs["lm_logits"]).requires_grad_()
        labels = torch.where(torch.tensor(inputs["loss_mask"]), torch.tensor(inputs["text_vec"][:count]), -100)
        logp, mask = token_logps(leaves["lm_logits"][:count], labels)

    def side(values: torch.Tensor) -> Side:
        return Side(logp=logp, mask=mask, outputs=values[:, None, None].expand(count, mask.shape[1], 1))

    pair = Pair(sides={"chosen": side(rewards[:count]), "rejected": side(rewards[count:])})
    terms = SecretsRM(epsilon=params["eps"], lm_factor=params["lm_loss_factor"])(Sequence(), pair)
    loss = sum(term.coefficient * term.value.sum() / term.count.sum() for term in terms.values())
    grads = torch.autograd.grad(loss, list(leaves.values()))
    scores = rewards.detach().numpy()
    return {
        "loss": loss,
        "accuracy": pair_accuracy(scores[:count], scores[count:]).accuracy.mean,
        "grads": dict(zip(leaves, grads, strict=True)),
    }


ADAPTERS: Adapters = {"secrets-rm": secrets_rm}
