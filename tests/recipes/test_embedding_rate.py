"""The input embeddings' own learning rate: which rate they get, that they move by it, and that nothing else does. Test of train/trainer.py."""

from typing import Any

import pytest
import torch
from torch import nn

from finegrain.objectives.dpo import DPO
from finegrain.rewards.ava_p import AvaP
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.token import Token
from finegrain.train.optim import FACTOR, Optim, make_optimizer
from finegrain.train.read_contract import contract_of
from finegrain.train.trainer import EMBEDDING_CEILING, embedding_rate
from tests.recipes.command import Command


def rate(objective: Any, rest: float, asked: float | None = None) -> float:
    return embedding_rate(Optim(embedding_lr=asked), contract_of(objective), rest)


def test_the_rate() -> None:
    reward = RewardFit(Token(), BradleyTerry())
    assert rate(reward, 1e-5) == pytest.approx(1e-4)
    assert rate(reward, 1e-3) == EMBEDDING_CEILING
    assert rate(reward, 1e-2) == 1e-2, "never less than the rest's"
    assert rate(reward, 1e-5, asked=1e-5) == 1e-5
    assert rate(DPO(), 1e-6) == 1e-6
    assert rate(RewardFit(Gaussian(), AvaP()), 1e-5) == 1e-5, "the vocabulary's head is read"


def test_embeddings_move_by_it() -> None:
    words, rest = nn.Parameter(torch.zeros(5, 2)), nn.Parameter(torch.zeros(2, 2))
    optimizer = make_optimizer([rest, words], [], Optim(), 0.1, embeddings=words, embedding_factor=3.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group[FACTOR]
    words.grad, rest.grad = torch.ones(5, 2), torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(words.detach(), torch.full((5, 2), -0.3))
    torch.testing.assert_close(rest.detach(), torch.full((2, 2), -0.1))


def test_the_record_says_it(command: Command) -> None:
    run = command.prefer("run", "head:token", "--max-length", "64", "--max-steps", "1", "--lr", "0.001", "--examined", "0", command="reward")
    assert run.code == 0, run.error
    assert command.record("run")["embedding_learning_rate"] == EMBEDDING_CEILING
    plain = command.prefer("plain", "--max-length", "64", "--max-steps", "1", "--lr", "0.001", "--examined", "0")
    assert plain.code == 0, plain.error
    assert command.record("plain")["embedding_learning_rate"] == command.record("plain")["learning_rate"] == 0.001
