"""Token rewards of a head whose score weighs its members: they add up to that score."""

import json

import pytest

from tests.recipes.command import Command
from tests.recipes.test_posterior import train


def test_token_rewards_add_up_to_a_weighed_score(command: Command) -> None:
    train(command, "run", "head:diverse-preferences", "loss:diverse-preferences", "--head.members", "3", "--epochs", "2")
    out = command.folder / "scores.jsonl"
    for signal in (("signal:prefix-difference", "signal.first:from-zero"), ("signal:attention",)):
        done = command("score", "--model", command.folder / "run", "--data", command.data, "--limit", "4", "--out", out, "--device", "cpu", *signal)
        assert done.code == 0, done.error
        for line in map(json.loads, out.read_text().splitlines()):
            assert sum(token[2] for token in line["tokens"]) == pytest.approx(line["score"]["mean"], abs=1e-5)
            assert all(token[3] is not None for token in line["tokens"])
        out.unlink()
