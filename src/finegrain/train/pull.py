"""Which tokens carry the gradient: the pull of an objective on the tokens of some rows, before the first step.

Source: ours [OURS]; the derivative of log softmax by its own logit is 1 - p.
Deviations: the pull on the other tokens' logits, which sums to the same with the opposite sign, is not told apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from finegrain.train.balance import weight_of
from finegrain.train.collate import TrainingSet, collate
from finegrain.train.contract import Contract, as_terms
from finegrain.train.tables import make_tables
from finegrain.types import Ragged

READ = frozenset({"logp", "reference", "reward", "label"})
"""What an objective may need; the rest would take a forward pass of its own."""


def token_pulls(contract: Contract, data: TrainingSet, places: Sequence[int], logps: Mapping[str, Ragged]) -> list[dict[str, np.ndarray]] | None:
    """By row and role, each token's signed share of the row's gradient by logits: above 0 where a step raises it, sizes of a row sum to 1.

    `logps`: by role, log-probabilities of the rows under the policy. None for an objective that reads more than those.
    """
    more = contract.needs - READ or contract.outputs or contract.modules or contract.reading or contract.statistics or contract.column_statistics
    if more or "logp" not in contract.needs or not places:
        return None
    batch = collate(data, places, contract.roles, positions=places)
    tables = make_tables(contract, data, torch.device("cpu"))
    pair = batch.pair(batch.zeros(torch.float64), state=tables)
    sides = {}
    for role, side in pair.sides.items():
        known = torch.zeros(side.mask.shape, dtype=torch.float64)
        for row, values in zip(known, logps[role], strict=True):
            row[: len(values)] = torch.tensor(values)
        sides[role] = replace(side, logp=torch.where(side.mask, known, 0.0).requires_grad_())
    with torch.enable_grad():
        terms = as_terms(contract.objective(replace(pair, sides=sides)), pair)
        losses = [
            term.coefficient * weight_of(name, contract.balanced, tables) * term.value.sum() / term.count.mean().clamp(min=1e-12)
            for name, term in terms.items()
        ]
        slopes = torch.autograd.grad(torch.stack(losses).sum(), [side.logp for side in sides.values()], allow_unused=True)
    pulls = {
        role: torch.zeros_like(side.logp) if slope is None else torch.where(side.mask, slope * torch.expm1(side.logp.detach()), 0.0)
        for (role, side), slope in zip(sides.items(), slopes, strict=True)
    }
    total = torch.stack([pull.abs().sum(1) for pull in pulls.values()]).sum(0)
    return [
        {role: (pull[row, : len(logps[role][row])] / total[row].clamp(min=1e-300)).detach().numpy() for role, pull in pulls.items()}
        for row in range(len(places))
    ]
