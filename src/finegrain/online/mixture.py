"""The loss of an update as a weighted sum of the losses of several advantages."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.online.aggregate import Aggregate
from finegrain.online.surrogates import Surrogate, TokenLoss
from finegrain.online.value_loss import live_weight, read_advantages, read_old_logp
from finegrain.types import Side, Term, Terms

Values = Float[Tensor, "B T"]


class LossMixture(NamedTuple):
    """Advantages, and the weights of their losses."""

    weights: Float[Tensor, " m"]
    advantages: Float[Tensor, "B T m"]

    @property
    def total(self) -> Values:
        """The weighted sum of the advantages."""
        return (self.weights * self.advantages).sum(-1)

    def token_loss(self, surrogate: Surrogate, logp: Values, old_logp: Values, mask: Bool[Tensor, "B T"]) -> TokenLoss:
        """The weighted sum of the losses; what the clip did, as to the sum of the advantages."""
        each = torch.stack([surrogate(logp, old_logp, one, mask).loss for one in self.advantages.unbind(-1)], -1)
        return surrogate(logp, old_logp, self.total, mask)._replace(loss=(self.weights * each).sum(-1))


def loss_slopes(side: Side, surrogate: Surrogate, aggregate: Aggregate, *, single: bool) -> Float[Tensor, "B T n"]:
    """Derivatives of the loss of each reward, before its division by the step's count, by the tokens' log-probabilities."""
    found = []
    with torch.enable_grad():
        for advantage in read_advantages(side).unbind(-1):
            logp = side.logp.detach().requires_grad_()
            losses = surrogate(logp, read_old_logp(side, single=single), advantage, side.mask).loss
            found.append(torch.autograd.grad(aggregate(losses, live_weight(side)).value.sum(), logp)[0])
    return torch.stack(found, -1)


def step_numbers(numbers: Mapping[str, Tensor], weight: Values) -> Terms:
    """Numbers of a whole step as means over its answers of which a token trains."""
    rows = (weight != 0).any(-1).to(weight.dtype)
    return {name: Term(value.to(rows) * rows, rows) for name, value in numbers.items()}
