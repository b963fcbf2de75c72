"""The reward that AVA's objectives leave beside the policy: `finegrain score` reads it, and the folder is still a stock policy.

Test of recipes/training/artifact.py.
"""

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from finegrain.data.load import load_examples
from finegrain.data.records import Shape
from finegrain.data.tokenise import Tokenise
from tests.recipes.command import Command


def scores(command: Command, run: str) -> list[dict[str, Any]]:
    out = command.folder / f"{run}-scores.jsonl"
    done = command("score", "--model", command.folder / run, "--data", command.data, "--out", out, "--device", "cpu")
    assert done.code == 0, done.error
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("objective", [("objective:ava-p",), ("objective:ava-p", "objective.reward-weight:attention")], ids=str)
def test_score_reads_it(command: Command, objective: tuple[str, ...]) -> None:
    done = command.prefer("run", *objective, "--max-length", "64", "--max-steps", "2", "--lr", "0.003", "--examined", "0")
    assert done.code == 0, done.error
    run = command.folder / "run"
    lines = scores(command, "run")
    assert all(token[3] > 0 for token in lines[0]["tokens"]), "every token has a std"
    assert json.loads((run / "reward_head.json").read_text())["head"]["method"] == "gaussian"
    lm = AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32).eval()
    if len(objective) == 1:
        settings = Tokenise(max_length=1024)
        first = load_examples(str(command.data), AutoTokenizer.from_pretrained(run), shape=Shape.PREFERENCE, settings=settings).examples[0]
        ids = torch.from_numpy(np.concatenate([first.prompt, first.responses["chosen"].ids]).astype(np.int64))[None]
        with torch.no_grad():
            states = lm.base_model(input_ids=ids).last_hidden_state[0, len(first.prompt) :]
        rewards = states @ load_file(run / "reward_head.safetensors")["weight"][0]
        assert [token[2] for token in lines[0]["tokens"]] == pytest.approx(rewards.tolist(), rel=1e-3, abs=1e-4)


def test_a_policy_without_one_is_refused(command: Command) -> None:
    assert command.prefer("run", "--max-length", "64", "--max-steps", "1", "--examined", "0").code == 0
    done = command("score", "--model", command.folder / "run", "--data", command.data, "--out", command.folder / "x.jsonl", "--device", "cpu")
    assert done.code == 4
    assert "--reference" in done.error
