"""A run that is killed goes on to the same bits. Test of recipes/online.py, recipes/rollouts/source.py, train/source.py, train/checkpoint.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finegrain.recipes.rollouts.source import OnlineSource
from finegrain.train.source import SourceState
from tests.recipes.command import Command
from tests.recipes.online_runs import NOISY, online, write_reward
from tests.tiny import without_times

ROOT = Path(__file__).parents[2]


def lines_of(run: Path, name: str = "metrics.jsonl") -> list[dict[str, object]]:
    return without_times(json.loads(line) for line in (run / name).read_text().splitlines())


INSIDE = ["algorithm:ppo", "--algorithm.epochs", "2", "--algorithm.minibatches", "2", "--save-every", "3", "--max-steps", "8"]


def stop_after(command: Command, run: str, monkeypatch: pytest.MonkeyPatch, step: int, *arguments: str) -> None:
    """A run whose process dies after a step: the checkpoint before it is all there is."""
    honest = OnlineSource.note

    def dies(self: OnlineSource, line: dict[str, float]) -> object:
        if line["step"] > step:
            raise KeyboardInterrupt
        return honest(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(OnlineSource, "note", dies)
        assert online(command, run, *arguments).code != 0


def test_a_run_goes_on_inside_a_buffer(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = write_reward(command.folder, NOISY)
    monkeypatch.setenv("RUN_OF_THE_TEST", str(command.folder / "whole"))
    assert online(command, "whole", "--reward", reward, *INSIDE).code == 0
    monkeypatch.setenv("RUN_OF_THE_TEST", str(command.folder / "cut"))
    stop_after(command, "cut", monkeypatch, 3, "--reward", reward, *INSIDE)
    assert online(command, "cut", "--reward", reward, *INSIDE, "--resume").code == 0
    whole, cut = command.folder / "whole", command.folder / "cut"
    assert lines_of(whole) == lines_of(cut)
    assert lines_of(whole, "rollouts.jsonl") == lines_of(cut, "rollouts.jsonl")
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()


def test_without_the_buffer_in_the_checkpoint_it_would_not(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = write_reward(command.folder, NOISY)
    monkeypatch.setenv("RUN_OF_THE_TEST", str(command.folder / "whole"))
    assert online(command, "whole", "--reward", reward, *INSIDE).code == 0
    honest = OnlineSource.state

    def forgets(self: OnlineSource) -> SourceState:
        found = honest(self)
        return SourceState({}, {**found.facts, "buffer": None})

    monkeypatch.setattr(OnlineSource, "state", forgets)
    monkeypatch.setenv("RUN_OF_THE_TEST", str(command.folder / "cut"))
    stop_after(command, "cut", monkeypatch, 3, "--reward", reward, *INSIDE)
    assert online(command, "cut", "--reward", reward, *INSIDE, "--resume").code == 0
    assert lines_of(command.folder / "whole") != lines_of(command.folder / "cut")


@pytest.mark.slow
def test_forty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    """kill -9 while sampling, scoring, between the updates of a buffer, while a checkpoint is written, and anywhere."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = [sys.executable, "tests/recipes/online_kills.py", str(tmp_path), "40"]
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    output = tmp_path / "output.txt"
    assert done.returncode == 0, done.stderr[-2000:] + (output.read_text()[-2000:] if output.exists() else "")
    kills = json.loads(done.stdout.splitlines()[-1])["kills"]
    assert sum(one["killed"] for one in kills) >= 36
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert lines_of(whole, name) == lines_of(killed, name)
