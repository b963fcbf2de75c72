"""`finegrain reward --frozen`: the head alone, on cached features, is the same training as with a frozen backbone.

Test of recipes/training/frozen_features.py.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from finegrain.recipes.session import Session
from finegrain.recipes.training import align as alignment
from finegrain.train.batches import Plan
from finegrain.train.loop import Trainer
from tests.recipes.command import Command


def reward(command: Command, run: str, *arguments: str | Path) -> Any:
    return command.prefer(run, "--max-length", "64", "--examined", "4", "--lr", "0.01", "--max-steps", "6", *arguments, command="reward")


class Unchanged:
    """In the place of `on_features`: the model computes at every step."""

    def __init__(self, session: Session, trainer: Trainer, plan: Plan) -> None:
        self.given = trainer, plan

    def __enter__(self) -> tuple[Trainer, Plan]:
        return self.given

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("head", [["head:sequence"], ["head:ensemble"], ["head:token", "head.readout:last"]])
def test_it_is_training_with_a_frozen_backbone(command: Command, monkeypatch: pytest.MonkeyPatch, head: list[str]) -> None:
    fast = reward(command, "fast", *head, "--frozen", "--holdout", "0.25")
    assert fast.code == 0, fast.error
    with monkeypatch.context() as patch:
        patch.setattr(alignment, "on_features", Unchanged)
        assert reward(command, "slow", *head, "--frozen", "--holdout", "0.25").code == 0
    one, two = (load_file(command.folder / run / "reward_head.safetensors")["weight"] for run in ("fast", "slow"))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    losses = [[line["loss"] for line in command.lines(run)] for run in ("fast", "slow")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] < losses[0][0]
    tokens = [sum(line["num_tokens"] for line in command.lines(run)) for run in ("fast", "slow")]
    assert tokens[0] == 3 * 18 < tokens[1], "18 pairs, each a stand-in for the prompt and one token an answer"
    accuracies = [command.record(run)["evaluation"]["eval_accuracy"]["mean"] for run in ("fast", "slow")]
    assert accuracies[0] == accuracies[1]


def test_the_backbone_is_exported_unchanged(command: Command) -> None:
    assert reward(command, "run", "head:sequence", "--frozen").code == 0
    run = command.folder / "run"
    before, after = load_file(command.model / "model.safetensors"), load_file(run / "model.safetensors")
    same = [name for name in after if name in before]
    assert len(same) > 5
    assert all(torch.equal(before[name], after[name]) for name in same)
    stock = AutoModelForSequenceClassification.from_pretrained(run)
    assert torch.equal(stock.score.weight.detach(), load_file(run / "reward_head.safetensors")["weight"])


def test_features_are_cached(command: Command, cache: Path) -> None:
    for run in ("one", "two"):
        assert reward(command, run, "head:sequence", "--frozen").code == 0
    assert list((cache / "features").glob("*.safetensors"))
    assert any("features: read from the cache" in note for note in command.record("two")["beside_training"]["notes"])
    assert command.lines("one") == command.lines("two")


def test_few_steps_cost_few_features(command: Command) -> None:
    outcome = reward(command, "run", "head:sequence", "--frozen", "--max-steps", "1", "--holdout", "0")
    assert outcome.code == 0, outcome.error
    assert command.record("run")["beside_training"]["rows"] == 4


def test_what_reads_other_tokens_is_refused_in_words(command: Command) -> None:
    for arguments in (["head:token"], ["head:segment"], ["head:gaussian", "loss:ava-p"]):
        outcome = reward(command, "run", *arguments, "--frozen")
        assert outcome.code == 2
        assert "--frozen keeps only the last token" in outcome.error
    lora = reward(command, "run", "head:sequence", "--frozen", "--lora.rank", "2")
    assert lora.code == 2
    assert "adapter" in lora.error
    loss = reward(command, "run", "head:gaussian-ensemble", "loss:brme", "--lora.rank", "2")
    assert loss.code == 2
    assert "BRME leaves the backbone as it is" in loss.error
    assert not (command.folder / "run").exists()
