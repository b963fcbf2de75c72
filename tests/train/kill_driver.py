"""Starts real runs as forked processes, kills them with SIGKILL and resumes them; prints one JSON line of what was seen.

    python tests/train/kill_driver.py FOLDER [KILLS]

Forking after the imports saves their seconds; every run is a process of its own that knows nothing of being watched.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finegrain.cli import main
from finegrain.recipes import prefer as preference
from finegrain.recipes.training import align as alignment
from finegrain.train import checkpoint
from tests.tiny import save_tiny, write_pairs

SLOW_WRITES = (3, 9, 15)
"""Kills that hit while a checkpoint is being written."""
BEFORE_PRUNE = 12
"""The kill between the rename of a checkpoint and the deletion of the one before."""
ANYWHERE = (0, 1, 6, 18)
"""Kills after a random time from the start: imports done, data, scorer or steps under way. All together take no more than three fifths of a whole
run, so that one of them never comes too late."""


def slow_write() -> None:
    """A disk that stops half-way through a checkpoint."""
    honest = checkpoint.save_file

    def half_then_wait(tensors: dict[str, torch.Tensor], file: Path) -> None:
        honest(tensors, file)
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        time.sleep(30)

    checkpoint.save_file = half_then_wait


def slow_prune() -> None:
    """A pause between the rename and the deletion."""
    checkpoint.Checkpoints.prune = lambda self: time.sleep(30)


def start(argv: list[str], cache: Path, patch: Callable[[], None] | None) -> int:
    """Process id of a forked run."""
    pid = os.fork()
    if pid:
        return pid
    os.environ["FINEGRAIN_CACHE"] = str(cache)
    sink = os.open(cache.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    if patch is not None:
        patch()
    os._exit(main(argv))


def wait_for(pid: int, condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether the condition came true while the process lived."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    raise TimeoutError("the run neither ended nor reached the point of its kill")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def steps_logged(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def names(run: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in run.glob(pattern))


def experiment(folder: Path, kills: int) -> dict[str, Any]:
    model, data = save_tiny(folder / "model"), write_pairs(folder / "pairs.jsonl", 40)
    common = ["prefer", "--model", str(model), "--data", str(data), "objective:dpo", "credit:asr"]
    common += ["--epochs", "30", "--batch-size", "4"]
    common += ["--save-every", "2", "--device", "cpu", "--samples", "0", "--lr", "1e-3", "--micro-tokens", "200"]
    common += ["--eval-every", "3", "--keep", "best", "--keep-by", "eval_rewards/chosen", "--patience", "500"]
    started = time.monotonic()
    assert os.waitpid(start([*common, "--out", str(folder / "whole")], folder / "whole-cache", None), 0)[1] == 0
    seconds = time.monotonic() - started
    run, cache = folder / "killed", folder / "killed-cache"
    argv = [*common, "--out", str(run), "--resume"]
    rng = np.random.default_rng(int(os.environ.get("KILL_SEED", "0")))
    seen = []
    for number in range(kills):
        before = steps_logged(run)
        patch = slow_write if number in SLOW_WRITES else slow_prune if number == BEFORE_PRUNE else None
        pid = start(argv, cache, patch)
        if patch is slow_write:
            now = time.time()
            hit = wait_for(pid, lambda now=now: any(file.stat().st_mtime > now for file in run.glob("*.part/training.safetensors")))
            time.sleep(0.2)
        elif patch is slow_prune:
            hit = wait_for(pid, lambda: len([n for n in names(run, "checkpoint-*") if not n.endswith(".part")]) == 2)
        elif number in ANYWHERE:
            until = time.monotonic() + float(rng.uniform(0, 0.15 * seconds))
            hit = wait_for(pid, lambda until=until: time.monotonic() > until)
        else:
            more = before + int(rng.integers(1, 9))
            hit = wait_for(pid, lambda more=more: steps_logged(run) >= more)
            time.sleep(float(rng.uniform(0, 0.03)))
        if hit:
            kill(pid)
        seen.append(
            {
                "kind": patch.__name__ if patch else "anywhere" if number in ANYWHERE else "steps",
                "killed": hit,
                "steps": steps_logged(run),
                "checkpoints": [name for name in names(run, "checkpoint-*") if not name.endswith(".part")],
                "parts": names(run, "*.part"),
                "bytes": {file.parent.name: file.stat().st_size for file in run.glob("*/training.safetensors")},
            }
        )
    assert os.waitpid(start(argv, cache, None), 0)[1] == 0
    return {"kills": seen, "seconds_of_a_whole_run": seconds, "seconds": time.monotonic() - started}


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert alignment
    assert preference
    print(json.dumps(experiment(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20)))
