"""What the tests of another device run in a process of its own, for autograd asks for its devices once, at the first backward.

python -m tests.train.device_worker FOLDER NAME...        prints a JSON line of what was seen of objectives and commands
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from finegrain.cli import main
from finegrain.ops import precision
from tests import other_device
from tests.tiny import save_tiny, write_pairs
from tests.train.harness import OBJECTIVES, How, build, largest_difference, train, weights

STEPS = range(2)
COMMANDS = {
    "ensemble": ["reward", "head:gaussian-ensemble"],
    "segments": ["reward", "head:segment", "head.segmenter:change-point"],
}


def steps(name: str, device: str) -> dict[str, Any]:
    """How far an objective's steps there are from those here, and how often the device waited for the host."""
    trainer, plan = build(OBJECTIVES[name](), How(micro_tokens=45))
    train(trainer, plan, STEPS)
    there, plan = build(OBJECTIVES[name](), How(micro_tokens=45, device=device))
    other_device.waits.clear()
    train(there, plan, STEPS)
    waits = sum(other_device.waits.values())
    found = {key: tensor.cpu() for key, tensor in weights(there).items()}
    return {
        "difference": largest_difference(found, weights(trainer)),
        "waits": waits,
        "micro_batches": sum(len(plan.step(index).micro[0]) for index in STEPS),
    }


def command(name: str, device: str, folder: Path) -> list[Any]:
    """The first logged losses there and here."""
    losses = []
    for place in (device, "cpu"):
        out = folder / f"{name}-{place}"
        paths = ["--model", str(folder / "model"), "--data", str(folder / "pairs.jsonl"), "--out", str(out)]
        code = main([*COMMANDS[name], *paths, "--device", place, "--dtype", "float32", "--max-steps", "2", "--batch-size", "8"])
        assert code == 0, name
        losses.append([json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()])
    return losses


def refused(device: str) -> list[str]:
    """What the device says of what it must refuse: the emulation itself can fail."""
    found = []
    for wrong in (lambda: torch.zeros(2, dtype=torch.float64, device=device), lambda: torch.zeros(2, device=device) + torch.zeros(2)):
        try:
            wrong()
        except (TypeError, RuntimeError) as error:
            found.append(str(error))
    precision.WITHOUT_FLOAT64.discard(device)
    try:
        steps("a module and a table", device)
    except TypeError as error:
        found.append(str(error))
    precision.WITHOUT_FLOAT64.add(device)
    return found


def report(folder: Path, names: list[str]) -> dict[str, Any]:
    """Everything that the tests look at."""
    save_tiny(folder / "model")
    write_pairs(folder / "pairs.jsonl", 20)
    with other_device.device() as device:
        return {"refused": refused(device)} | {name: command(name, device, folder) if name in COMMANDS else steps(name, device) for name in names}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(report(Path(sys.argv[1]), sys.argv[2:])))
