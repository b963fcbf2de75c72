"""`finegrain iterate rounds:reward-rounds`: samples, a reward of them, the policy on that reward, twice; and going on within a round.

Test of rounds/reward_rounds.py, recipes/iteration/stages.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finegrain.recipes.iteration import stages
from tests.recipes.command import Command, Outcome
from tests.tiny import write_rows

ONLINE = {"training": {"prompts": 2, "samples": 0, "holdout": 0.0}, "sampling": {"answers": 2}}


def rounds(command: Command, out: str, *arguments: str | Path) -> Outcome:
    given = [json.loads(line) for line in command.data.read_text().splitlines()[:12]]
    data = write_rows(command.folder / "demonstrations.jsonl", [{"prompt": row["prompt"], "completion": row["chosen"]} for row in given])
    (command.folder / "stages.json").write_text(json.dumps({"online": ONLINE}))
    usual = ("--model", command.model, "--data", data, "--out", command.folder / out, "--device", "cpu", "--samples", "0", "--max-length", "64")
    short = ("--batch-size", "4", "--examined", "0", "--holdout", "0", "--max-steps", "2", "--lr", "1e-3", "rounds:reward-rounds")
    own = ("--rounds.count", "2", "--rounds.max-new-tokens", "5", "--rounds.stages", command.folder / "stages.json", "--rounds.reward-lr", "1e-3")
    return command("iterate", *usual, *short, *own, *arguments)


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["irl-sft", "ava-p", "ava-d"])
def test_two_rounds(command: Command, loss: str) -> None:
    done = rounds(command, "run", "--rounds.loss", loss)
    assert done.code == 0, done.error
    parts = ("rows", "reward", "online")
    assert done.result["stages"] == [f"round-{number}/{part}" for number in (1, 2) for part in parts]
    out = command.folder / "run"
    rows = [json.loads(line) for number in (1, 2) for line in (out / f"round-{number}" / "rows" / "rows.jsonl").read_text().splitlines()]
    assert sorted(row["source_row"] for row in rows) == list(range(12))
    second = command.record("run/round-2/online")["settings"]
    assert second["model"] == str(out / "round-1" / "online")
    assert second["reward"] == [str(out / "round-2" / "reward")]
    assert second["credit"]["choice"] == "head"
    start = out / "round-1" / "reward" if loss == "irl-sft" else command.model
    assert command.record("run/round-2/reward")["settings"]["model"] == str(start)
    assert command.record("run/round-1/reward")["settings"]["loss"]["method"] == loss
    assert same_weights(out, out / "round-2" / "online")


@pytest.mark.slow
def test_a_stopped_round_goes_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rounds(command, "whole").code == 0
    honest, calls = stages.run_command, iter(range(99))

    def dies(*given: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return honest(*given)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "run_command", dies)
        assert rounds(command, "run").code == 130
    assert command.record("run")["status"] == "interrupted"
    done = rounds(command, "run", "--resume")
    assert done.code == 0, done.error
    assert same_weights(command.folder / "run", command.folder / "whole")
