"""What every process of the two-process tests runs: train by the harness, save the first rank's outcome; or run the command line.

python -m torch.distributed.run --nproc_per_node 2 tests/train/process_worker.py split OUT      (or sharded OUT)
python -m torch.distributed.run --nproc_per_node 2 tests/train/process_worker.py command ARGUMENTS...
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from finegrain.cli import main
from finegrain.train.distributed import rank, world
from finegrain.train.loop import Trainer
from finegrain.train.sharding import gathered
from finegrain.train.tally import Measures
from finegrain.types import Pair
from tests.train.harness import OBJECTIVES, How, build, can_be_sharded, train, weights


def split(out: Path) -> None:
    """Every objective in both precisions under a world of two; rank 0 writes weights and lines, rank 1 its weights."""
    Accelerator(cpu=True)
    assert world() == 2
    found = {}
    for name, make in OBJECTIVES.items():
        for dtype in (torch.float32, torch.float64):
            trainer, plan = build(make(), How(dtype=dtype, micro_tokens=30, world=2))
            shares = [[len(share) for share in plan.step(index).micro] for index in range(len(plan))]
            assert any(0 in share for share in shares), "a step with fewer rows than ranks"
            assert any(share[0] != share[1] and min(share) > 0 for share in shares), "uneven numbers of micro-batches"
            lines = train(trainer, plan)
            found[f"{name} {dtype}"] = {"weights": weights(trainer), "lines": lines}
    torch.save(found, out / f"rank{rank()}.pt")


def checked(trainer: Trainer) -> Trainer:
    """The trainer, asserting after every backward that its gradients have been summed and split: until then FSDP holds them whole."""

    def metrics(pair: Pair) -> Measures:
        assert all(parameter.grad is not None for parameter in trainer.scorer.parameters()), "gradients are held whole between micro-batches"
        return trainer.metrics(pair)

    return replace(trainer, metrics=metrics)


def sharded(out: Path) -> None:
    """The same with the model sharded; rank 0 writes gathered weights and lines."""
    Accelerator(cpu=True)
    assert world() == 2
    found = {}
    for name, make in OBJECTIVES.items():
        if not can_be_sharded(make()):
            continue
        for dtype in (torch.float32, torch.float64):
            trainer, plan = build(make(), How(dtype=dtype, micro_tokens=30, world=2, shard=True))
            own = sum(p.to_local().numel() for p in trainer.scorer.parameters())
            lines = train(checked(trainer), plan)
            whole = gathered(trainer.scorer)
            assert own < 0.6 * sum(tensor.numel() for tensor in whole.values()), "each process holds about half"
            found[f"{name} {dtype}"] = {"weights": weights(trainer) | whole, "lines": lines}
    torch.save(found, out / f"rank{rank()}.pt")


def command(arguments: list[str]) -> None:
    """The command line, as a user would launch it."""
    code = main(arguments)
    assert world() == 2
    if code:
        sys.exit(code)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "command":
        command(sys.argv[2:])
    else:
        {"split": split, "sharded": sharded}[sys.argv[1]](Path(sys.argv[2]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
