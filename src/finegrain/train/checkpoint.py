"""Checkpoints for resuming: written beside and renamed, safetensors and JSON only, the previous one kept until then.

`checkpoint-<step>/` is a `save_pretrained` layout for stock tools, plus `training.safetensors` (float32 masters of what
trains, optimiser moments, tables, random state) and `training.json` (step and the names of the optimiser's numbers).
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from finegrain.errors import CheckpointError
from finegrain.models.permissions import allow_readers
from finegrain.train.distributed import barrier, rank
from finegrain.train.loop import Trainer

PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints below a run directory."""

    folder: Path
    keep: int = 1

    def complete(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        found = [path for path in self.folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
        return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))

    def save(self, trainer: Trainer, step: int, export: Callable[[Path], None]) -> Path:
        """Write the state after `step` optimiser steps; `export` adds the stock layout."""
        final = self.folder / f"{PREFIX}{step}"
        if rank() == 0 and not final.exists():
            part = self.folder / f"{PREFIX}{step}.part"
            shutil.rmtree(part, ignore_errors=True)
            try:
                part.mkdir(parents=True)
                export(part)
                tensors, numbers = _state(trainer)
                save_file(tensors, part / "training.safetensors")
                allow_readers(part / "training.safetensors")
                (part / "training.json").write_text(json.dumps({"step": step, "numbers": numbers}))
                part.rename(final)
            except (OSError, SafetensorError) as error:
                shutil.rmtree(part, ignore_errors=True)
                kept = self.complete()
                survives = f"{kept[-1].name} survives; resume from it with --resume" if kept else "there is no earlier one"
                raise CheckpointError(f"cannot write {final.name} to {self.folder}: {error}; {survives}") from error
            self.prune()
        barrier()
        return final

    def prune(self) -> None:
        """Delete all but the newest `keep` checkpoints, and unfinished ones."""
        for path in [*self.complete()[: -self.keep], *self.folder.glob(f"{PREFIX}*.part")]:
            shutil.rmtree(path, ignore_errors=True)

    def restore(self, trainer: Trainer) -> int:
        """Put the newest checkpoint's state into the trainer; returns the number of finished steps, 0 without one."""
        found = self.complete()
        if not found:
            return 0
        try:
            record = json.loads((found[-1] / "training.json").read_text())
            tensors = load_file(found[-1] / "training.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"cannot read {found[-1]}: {error}; delete it to go on without it") from error
        _restore(trainer, tensors, record["numbers"])
        return int(record["step"])


def _named(trainer: Trainer) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by a stable name."""
    named = {f"policy.{name}": parameter for name, parameter in trainer.scorer.named_parameters() if parameter.requires_grad}
    for key, module in trainer.contract.modules.items():
        named |= {f"module.{key}.{name}": parameter for name, parameter in module.named_parameters()}
    return named


def _state(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, float]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for name, parameter in _named(trainer).items():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.ndim:
                tensors[f"optimizer/{key}/{name}"] = value.contiguous()
            else:
                numbers[f"optimizer/{key}/{name}"] = float(value)
    for name, table in trainer.state.items():
        tensors[f"table/{name}"] = table.contiguous()
    tensors["random/torch"] = torch.get_rng_state()
    return {name: tensor.cpu() for name, tensor in tensors.items()}, numbers


def _restore(trainer: Trainer, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
    named = _named(trainer)
    stored = {name.removeprefix("weight/") for name in tensors if name.startswith("weight/")}
    if stored != set(named):
        odd = sorted(stored ^ set(named))
        raise CheckpointError(f"the checkpoint trains other parameters than this run ({', '.join(odd[:3])}); resume with the same settings")
    for name, parameter in named.items():
        with torch.no_grad():
            parameter.copy_(tensors[f"weight/{name}"])
        state = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer/") and key.endswith(f"/{name}") and key.split("/", 2)[2] == name:
                state[key.split("/", 2)[1]] = tensor.to(parameter.device)
        for key, number in numbers.items():
            if key.split("/", 2)[2] == name:
                state[key.split("/", 2)[1]] = torch.tensor(number, dtype=torch.float32, device=parameter.device)
        if state:
            trainer.optimizer.state[parameter] = state
    for name in trainer.state:
        trainer.state[name] = tensors[f"table/{name}"].to(trainer.scorer.device)
    torch.set_rng_state(tensors["random/torch"])
