"""Checkpoints for resuming: written beside and renamed, safetensors and JSON only, the previous one kept until then.

`checkpoint-<step>/` is a `save_pretrained` layout for stock tools, plus `training.safetensors` (float32 masters of what
trains, optimiser moments, tables, random state) and `training.json` (step and the names of the optimiser's numbers). A run
that makes its own rows adds `source.safetensors` (e.g. the answers at hand) and the state of each model that trains beside
the policy, `beside-<name>.safetensors`.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from finegrain.errors import CheckpointError
from finegrain.models.permissions import allow_readers
from finegrain.train.distributed import barrier, rank
from finegrain.train.loop import Trainer
from finegrain.train.source import SourceState, StepSource

PREFIX = "checkpoint-"
SOURCE = "source.safetensors"
"""What the source of the rows needs to go on."""
TABLE = "table/"
"""Before the names of the objective's tables, among tensors of what trains."""

STATE: Mapping[type, Set[str]] = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}}
"""What an optimiser keeps of a parameter that had a gradient."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints below a run directory."""

    folder: Path
    keep: int = 1

    def complete(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        found = [path for path in self.folder.glob(f"{PREFIX}*") if _own(path)]
        return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))

    def save(
        self,
        trainer: Trainer,
        step: int,
        export: Callable[[Path], None],
        selection: Mapping[str, Any] | None = None,
        source: StepSource | None = None,
    ) -> Path:
        """Write the state after `step` optimiser steps; `export` adds the stock layout. `selection`: which step was best so far.

        `source`: what makes the rows, where they are not those of a file.
        """
        final = self.folder / f"{PREFIX}{step}"
        if rank() == 0 and final.exists() and not _own(final):
            raise CheckpointError(f"{final} is no checkpoint of this program and stays as it is; take it away, or give another --out")
        if rank() == 0 and not final.exists():
            part = self.folder / f"{PREFIX}{step}.part"
            shutil.rmtree(part, ignore_errors=True)
            try:
                part.mkdir(parents=True)
                export(part)
                record = {"step": step, "numbers": _write(trainer, part / "training.safetensors"), "selection": dict(selection or {})}
                if source is not None:
                    own = source.state()
                    save_file({name: tensor.contiguous() for name, tensor in own.tensors.items()}, part / SOURCE)
                    allow_readers(part / SOURCE)
                    record |= {"source": own.facts}
                    record["beside"] = {name: _write(other, part / _beside(name)) for name, other in source.beside().items()}
                (part / "training.json").write_text(json.dumps(record), encoding="utf-8")
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
        parts = [path for path in self.folder.glob(f"{PREFIX}*.part") if _step(path.name.removesuffix(".part")) is not None and not path.is_symlink()]
        for path in [*self.complete()[: -self.keep], *parts]:
            shutil.rmtree(path, ignore_errors=True)

    def selection(self) -> tuple[Path | None, Mapping[str, Any]]:
        """The newest checkpoint and what it says of the best step so far."""
        found = self.complete()
        if not found:
            return None, {}
        return found[-1], _record(found[-1])["selection"]

    def restore(self, trainer: Trainer, source: StepSource | None = None) -> int:
        """Put the newest checkpoint's state into the trainer and what makes its rows; returns the number of finished steps, 0 without one."""
        found = self.complete()
        if not found:
            return 0
        record = _record(found[-1])
        try:
            if source is not None:
                for name, other in source.beside().items():
                    _restore(other, load_file(found[-1] / _beside(name)), record["beside"][name])
                source.restore(SourceState(load_file(found[-1] / SOURCE), record["source"]), int(record["step"]))
            _restore(trainer, load_file(found[-1] / "training.safetensors"), record["numbers"])
        except CheckpointError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"cannot read {found[-1]}: {error or type(error).__name__}; delete it to go on without it") from error
        return int(record["step"])


def _record(checkpoint: Path) -> dict[str, Any]:
    """training.json: the step of the folder's name, the optimiser's numbers, and which step was best so far."""
    try:
        record = {"selection": {}, **json.loads((checkpoint / "training.json").read_text(encoding="utf-8"))}
        if record["step"] != _step(checkpoint.name) or not isinstance(record["selection"], dict):
            raise ValueError(f"training.json says step {record['step']}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"cannot read {checkpoint}: {error or type(error).__name__}; delete it to go on without it") from error
    return record


def _step(name: str) -> int | None:
    """The step in the name of a checkpoint."""
    digits = name.removeprefix(PREFIX)
    return int(digits) if name.startswith(PREFIX) and digits.isascii() and digits.isdigit() else None


def _own(path: Path) -> bool:
    """Whether a folder is a checkpoint that `save` wrote: others' stand under such names too, and a link leads elsewhere."""
    return _step(path.name) is not None and not path.is_symlink() and (path / "training.json").is_file()


def named_weights(trainer: Trainer) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by a stable name."""
    named = {f"policy.{name}": parameter for name, parameter in trainer.scorer.named_parameters() if parameter.requires_grad}
    for key, module in trainer.contract.modules.items():
        named |= {f"module.{key}.{name}": parameter for name, parameter in module.named_parameters()}
    return named


def load_weights(trainer: Trainer, weights: Mapping[str, Tensor]) -> None:
    """Put weights by `named_weights`' names into the trainer."""
    named = named_weights(trainer)
    if weights.keys() != named.keys():
        odd = sorted(weights.keys() ^ named.keys())
        raise CheckpointError(f"the checkpoint trains other parameters than this run ({', '.join(odd[:3])}); resume with the same settings")
    if odd := [name for name in named if weights[name].shape != named[name].shape]:
        raise CheckpointError(f"parameters of the checkpoint have other shapes than this run's ({', '.join(odd[:3])}); resume with the same settings")
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(weights[name])


def _beside(name: str) -> str:
    return f"beside-{name.strip('/')}.safetensors"


def _write(trainer: Trainer, file: Path) -> dict[str, float]:
    """The trainer's tensors in a file; returns its numbers."""
    tensors, numbers = _state(trainer)
    save_file(tensors, file)
    allow_readers(file)
    return numbers


def _state(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, float]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for name, parameter in named_weights(trainer).items():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.ndim:
                tensors[f"optimizer/{key}/{name}"] = value.contiguous()
            else:
                numbers[f"optimizer/{key}/{name}"] = float(value)
    for name, table in trainer.state.items():
        tensors[TABLE + name] = table.contiguous()
    tensors["random/torch"] = torch.get_rng_state()
    generator = _device_generator(trainer)
    if generator is not None:
        tensors["random/device"] = generator.get_state()
    return {name: tensor.cpu() for name, tensor in tensors.items()}, numbers


def _restore(trainer: Trainer, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
    load_weights(trainer, {name.removeprefix("weight/"): tensor for name, tensor in tensors.items() if name.startswith("weight/")})
    for name, parameter in named_weights(trainer).items():
        state = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer/") and key.endswith(f"/{name}") and key.split("/", 2)[2] == name:
                state[key.split("/", 2)[1]] = tensor.to(parameter.device)
        for key, number in numbers.items():
            if key.split("/", 2)[2] == name:
                state[key.split("/", 2)[1]] = torch.tensor(number, dtype=torch.float32, device=parameter.device)
        if state and state.keys() != STATE.get(type(trainer.optimizer), state.keys()):
            raise ValueError(f"the optimiser's state of {name} is not whole")
        if state:
            trainer.optimizer.state[parameter] = state
    for name, table in trainer.state.items():
        if tensors[TABLE + name].shape != table.shape:
            raise CheckpointError(f"the table {name} of the checkpoint has another shape than this run's; resume with the same data and settings")
        trainer.state[name] = tensors[TABLE + name].to(trainer.scorer.device)
    torch.set_rng_state(tensors["random/torch"])
    generator = _device_generator(trainer)
    if generator is not None and "random/device" in tensors:
        generator.set_state(tensors["random/device"])


def _device_generator(trainer: Trainer) -> torch.Generator | None:
    """What the trainer's device draws from; None where that is the CPU's own, which is kept anyway."""
    device = trainer.scorer.device
    if device.type == "cuda":
        return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    return torch.mps._get_default_mps_generator() if device.type == "mps" else None
