"""Adapter of learning from revisions."""

import numpy as np
import torch
from torch import Tensor

from finegrain.objectives.figa import FIGA
from finegrain.ops.sequence import token_logps
from finegrain.types import Pair, Side
from tests.golden.given import Adapters, Values, real
from tests.rewards.answers import Answers


def figa(params: Values, inputs: Values) -> Values:
    method = FIGA(added=params["alpha"], removed=params["beta"], unchanged=params["gamma"], gate=params["nll_gate"])
    logits, labels = real(inputs["logits"]).requires_grad_(), torch.tensor(inputs["labels"])
    answers = labels != -100
    rows = dict(zip(method.roles, (inputs["good"], inputs["bad"]), strict=True))
    ids = {role: [np.array(own) for own in given] for role, given in rows.items()}
    assert [len(given) for given in inputs["input_ids"]] == [len(given) for given in inputs["labels"]]
    assert len(inputs["prompt"]) == len(inputs["good"])
    ends = {role: [own == params["eos_id"] for own in given] for role, given in ids.items()}
    columns = method.prepare(Answers(roles=method.roles, ids=ids, ends=ends))
    marks = torch.zeros(labels.shape, dtype=torch.float64)
    for place, role in enumerate(method.roles):
        for row, changed in enumerate(columns[role].weight):
            marks[2 * row + place, answers[2 * row + place]] = torch.from_numpy(np.asarray(changed, dtype=np.float64))
    logp, mask = token_logps(logits, labels)
    both = {role: Side(logp=logp[place::2], mask=mask[place::2], weight=marks[place::2, 1:]) for place, role in enumerate(method.roles)}
    (term,) = method(Pair(sides=both)).values()
    loss = term.value.sum() / term.count.sum()
    (slope,) = torch.autograd.grad(loss, [logits], retain_graph=True)
    weights = -torch.autograd.grad(term.value.sum(), [logp])[0]
    signs = marks.clone()
    signs[1::2] = -marks[1::2] + (labels[1::2] == params["eos_id"])
    return {
        "edit_mask": signs,
        "weights_shifted": weights,
        "n_tokens_in_denominator": term.count.sum(),
        "loss": loss,
        "grads": {"logits_abs_sum": slope.abs().sum(), "logits_row0_col": _by_position(slope[0]), "logits_row1_col": _by_position(slope[1])},
    }


def _by_position(slope: Tensor) -> Tensor:
    return slope.abs().sum(-1)


ADAPTERS: Adapters = {"figa": figa}
