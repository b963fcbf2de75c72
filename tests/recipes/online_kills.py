"""Starts runs of `finegrain online` as forked processes, kills them with SIGKILL at random moments and resumes them.

    python tests/recipes/online_kills.py FOLDER [KILLS]

The reward is a function that answers otherwise when it is asked about a buffer that a checkpoint holds already: who scores such answers again
does not end where the unkilled run does.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finegrain.recipes import online as alignment
from tests.recipes.online_runs import NOISY
from tests.tiny import save_tiny, write_rows
from tests.train.kill_driver import kill, names, slow_write, start, steps_logged, wait_for

PAUSES = {
    "sampling": ("finegrain.recipes.rollouts.buffer", "BufferMaker", "read"),
    "scoring": ("finegrain.recipes.rollouts.rewards", "Rewards", "score"),
}
"""Where a kill is made likely by a pause of its own: after sampling, and while answers are scored."""
SLOW_WRITES = (5, 17, 29)


def pause_in(where: str) -> None:
    """The method waits a little, so that kills hit it."""
    module, owner, name = PAUSES[where]
    cls = getattr(sys.modules[module], owner)
    honest = getattr(cls, name)

    def slow(self: Any, *arguments: Any, **named: Any) -> Any:
        time.sleep(0.05)
        return honest(self, *arguments, **named)

    setattr(cls, name, slow)


def experiment(folder: Path, kills: int) -> dict[str, Any]:
    model = save_tiny(folder / "model")
    data = write_rows(folder / "prompts.jsonl", [{"prompt": f"why {place} ?"} for place in range(12)])
    (folder / "reward.py").write_text(NOISY)
    common = ["online", "--model", str(model), "--data", str(data), "--reward", f"{folder / 'reward.py'}:reward", "algorithm:ppo"]
    common += [
        "--algorithm.epochs",
        "2",
        "--algorithm.minibatches",
        "4",
        "--prompts",
        "2",
        "--sampling.answers",
        "4",
        "--sampling.max-new-tokens",
        "6",
    ]
    common += ["--epochs", "3", "--save-every", "3", "--device", "cpu", "--samples", "1", "--lr", "1e-3", "--max-length", "48"]
    common += ["--eval-every", "4", "--holdout", "0.2", "--kl-stop", "0.5"]
    whole, run = folder / "whole", folder / "killed"
    os.environ["RUN_OF_THE_TEST"] = str(whole)
    started = time.monotonic()
    assert os.waitpid(start([*common, "--out", str(whole)], folder / "cache", None), 0)[1] == 0
    seconds = time.monotonic() - started
    os.environ["RUN_OF_THE_TEST"] = str(run)
    argv = [*common, "--out", str(run), "--resume"]
    rng = np.random.default_rng(0)
    seen = []
    for number in range(kills):
        before = steps_logged(run)
        kind = "slow write" if number in SLOW_WRITES else ("sampling", "scoring", "updates", "anywhere")[number % 4]
        patch = slow_write if kind == "slow write" else (lambda kind=kind: pause_in(kind)) if kind in PAUSES else None
        pid = start(argv, folder / "cache", patch)
        if kind == "slow write":
            now = time.time()
            hit = wait_for(pid, lambda now=now: any(file.stat().st_mtime > now for file in run.glob("*.part/training.safetensors")))
        elif kind == "anywhere":
            until = time.monotonic() + float(rng.uniform(0, 0.2 * seconds))
            hit = wait_for(pid, lambda until=until: time.monotonic() > until)
        else:
            more = before + int(rng.integers(0, 3))
            hit = wait_for(pid, lambda more=more: steps_logged(run) >= more)
            time.sleep(float(rng.uniform(0, 0.08)))
        if hit:
            kill(pid)
        seen.append({"kind": kind, "killed": hit, "steps": steps_logged(run), "checkpoints": names(run, "checkpoint-*")})
    assert os.waitpid(start(argv, folder / "cache", None), 0)[1] == 0
    return {"kills": seen, "seconds": seconds}


if __name__ == "__main__":
    assert alignment
    torch.set_num_threads(1)
    print(json.dumps(experiment(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40)))
