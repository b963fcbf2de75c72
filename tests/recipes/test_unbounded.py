"""Losses without a lower bound: the run says so and stops before the model is spoilt for good. Test of train/run.py, recipes/training/trainer.py."""

import pytest

from finegrain.objectives.ava_p import AvaP
from finegrain.objectives.dpo import DPO
from finegrain.objectives.figa import FIGA
from finegrain.objectives.irl_sft import IRLSFT, LinearLink
from finegrain.ops.contrast import Literal
from finegrain.train.read_contract import contract_of
from tests.recipes.command import Command


def test_which_have_no_bound() -> None:
    assert all(contract_of(one).unbounded for one in (IRLSFT(link=LinearLink()), FIGA(gate=None), AvaP(negative=Literal())))
    assert not any(contract_of(one).unbounded for one in (IRLSFT(), FIGA(), FIGA(gate=None, removed=0.0), AvaP(), DPO()))


@pytest.mark.parametrize(("beta", "code"), [("0.1", 0), ("1000", 6)])
def test_a_loss_that_falls_for_ever_stops_the_run(command: Command, beta: str, code: int) -> None:
    choice = ["objective:irl-sft", "objective.link:linear-link", "--objective.beta", beta, "--lr", "0.01"]
    done = command.prefer("run", *choice, "--max-steps", "4", "--limit", "8", "--samples", "0", "--examined", "0")
    assert done.code == code, done.error
    assert "IRLSFT has no lower bound: link:linear-link is the margin itself" in done.error
    assert ("below -100: link:linear-link" in done.error) == bool(code)
    assert not code or command.record("run")["status"] == "failed"
