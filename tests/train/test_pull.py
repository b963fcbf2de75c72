"""Which tokens carry the gradient, against the gradient itself. Test of train/pull.py."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from finegrain.objectives.aot import AOT
from finegrain.objectives.dpo import DPO
from finegrain.objectives.lcpo import LCPO
from finegrain.objectives.nll import NLL
from finegrain.objectives.token_distillation import TokenDistillation
from finegrain.train.collate import collate
from finegrain.train.contract import as_terms
from finegrain.train.pull import token_pulls
from finegrain.train.read_contract import contract_of
from finegrain.train.tables import make_tables
from tests.train.awkward import KLDifference
from tests.train.harness import training_set

PLACES = (2, 0, 7, 4)


def start_of(data: Any) -> dict[str, list[np.ndarray]]:
    return {role: [values[place] for place in PLACES] for role, values in data.reference.items()}


@pytest.mark.parametrize("objective", [DPO(), NLL(), TokenDistillation(), LCPO()])
def test_shares_are_those_of_the_gradient_by_the_tokens_own_logits(objective: Any) -> None:
    """Every token's log-probability made of three logits; the gradient by the first, which is the token's, is what is shared out."""
    contract = contract_of(objective)
    data = training_set(contract)
    found = token_pulls(contract, data, PLACES, start_of(data))
    assert found is not None
    for place, own in zip(PLACES, found, strict=True):
        batch = collate(data, [place], contract.roles, positions=[0])
        pair = batch.pair(batch.zeros(torch.float64), state=make_tables(contract, data, torch.device("cpu")))
        logits, sides = {}, {}
        for role, side in pair.sides.items():
            logp = torch.from_numpy(data.reference[role][place]).double()
            rest = torch.log1p(-logp.exp())
            logits[role] = torch.stack([logp, rest + np.log(0.3), rest + np.log(0.7)], -1).requires_grad_()
            sides[role] = replace(side, logp=torch.where(side.mask[0], logits[role].log_softmax(-1)[:, 0], 0.0)[None])
        sum(term.value.sum() for term in as_terms(contract.objective(replace(pair, sides=sides)), pair).values()).backward()
        pulls = {role: -logit.grad[:, 0].numpy() for role, logit in logits.items()}
        total = float(sum(np.abs(pull).sum() for pull in pulls.values()))
        for role, pull in pulls.items():
            np.testing.assert_allclose(own[role], pull / (total or 1.0), atol=1e-9)
            assert not own[role][~data.examples[place].responses[role].mask].any()
        assert sum(np.abs(values).sum() for values in own.values()) == pytest.approx(float(total > 0)), "without rewards, nothing"
        if isinstance(objective, DPO):
            assert (own["chosen"] >= 0).all()
            assert (own["rejected"] <= 0).all()


def test_an_objective_that_reads_more_has_no_shares() -> None:
    for objective in (KLDifference(), AOT()):
        contract = contract_of(objective)
        data = training_set(contract)
        assert token_pulls(contract, data, PLACES, start_of(data)) is None
    assert token_pulls(contract_of(DPO()), training_set(contract_of(DPO())), (), {}) is None
