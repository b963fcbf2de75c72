"""What a training job makes: how it is measured, tested on held-out rows and saved. A policy here, a reward model in `reward`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from safetensors.torch import save_file
from torch import nn

from finegrain.configure import to_json
from finegrain.data.records import Example
from finegrain.models.load import save_policy, try_saving
from finegrain.models.permissions import allow_readers
from finegrain.models.reward_head import save_head
from finegrain.models.reward_models import FACTS_FILE
from finegrain.recipes.session import Session
from finegrain.recipes.training.reward_usage import Usage
from finegrain.rewards.heads import RewardHead
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.evaluation import Read, evaluate, results_of
from finegrain.train.loop import Trainer
from finegrain.train.metrics import metrics_for
from finegrain.train.tally import Metrics
from finegrain.types import Json


class RowColumns(NamedTuple):
    """Numbers made for the training rows."""

    numbers: Mapping[str, np.ndarray]
    """(N,) by name."""
    facts: Json
    """For run.json."""


@runtime_checkable
class Artifact(Protocol):
    """A kind of trained model."""

    @property
    def head(self) -> RewardHead | None:
        """What the outputs of a reward model's head mean; None for a policy."""

    @property
    def loader(self) -> str:
        """The stock class that loads it, for the model card."""

    def check(self, session: Session) -> Json:
        """Refuse, before anything is trained, what could not be saved; returns what run.json says of the start model."""

    def columns(self, session: Session, examples: Sequence[Example]) -> RowColumns:
        """Numbers of the training rows that are made before training."""

    def metrics(self, contract: Contract) -> Metrics:
        """What every step logs."""

    def results(self, contract: Contract) -> Mapping[str, bool]:
        """Held-out results that every evaluation gives and that can say which step is better, the usual one first; True: more is better."""

    def evaluate(self, trainer: Trainer, data: TrainingSet) -> dict[str, Any]:
        """Held-out results; {} without rows. Changes nothing."""

    def conclude(self, trainer: Trainer, data: TrainingSet, read: Read | None = None) -> dict[str, Any]:
        """The same of the finished model, which may be refused here, or fitted to these rows; `read` sees the log-probabilities on the way."""

    def save(self, session: Session, contract: Contract, folder: Path) -> None:
        """The layout stock tools load."""

    def try_saving(self, session: Session, folder: Path) -> None:
        """The same without the large weights, before the first step: raises what `save` would raise at the end."""

    def use(self, folder: Path, rows: Sequence[Example], count: int) -> Usage | None:
        """Some rows scored by the saved files of a reward model; None for a policy, which answers prompts instead."""


@dataclass(frozen=True)
class AlignedPolicy:
    """A causal language model; a head that its objective trained beside it lies in a file of its own."""

    loader: str = "AutoModelForCausalLM"
    head: RewardHead | None = None

    def check(self, session: Session) -> Json:
        """Whatever was loaded can be saved."""
        return {}

    def columns(self, session: Session, examples: Sequence[Example]) -> RowColumns:
        """None."""
        return RowColumns({}, {})

    def metrics(self, contract: Contract) -> Metrics:
        """Preference or answer metrics."""
        return metrics_for(contract)

    def evaluate(self, trainer: Trainer, data: TrainingSet) -> dict[str, Any]:
        """The same on held-out rows, and the margin."""
        return evaluate(trainer, data)

    def try_saving(self, session: Session, folder: Path) -> None:
        """What `save_pretrained` would refuse."""
        try_saving(session.policy, folder)

    def results(self, contract: Contract) -> Mapping[str, bool]:
        """Those that the objective's declarations ask for."""
        return results_of(contract)

    def conclude(self, trainer: Trainer, data: TrainingSet, read: Read | None = None) -> dict[str, Any]:
        """The same: a policy is finished as it is."""
        return evaluate(trainer, data, read)

    def save(self, session: Session, contract: Contract, folder: Path) -> None:
        """As `save_pretrained` writes it."""
        save_policy(session.policy, folder)
        save_modules(contract.modules, folder)
        if session.scorer is not None and session.scorer.head is not None:
            save_head(session.scorer.head, folder)
            if facts := reward_head_facts(contract):
                (folder / FACTS_FILE).write_text(json.dumps({"head": facts["reward_head"]}, indent=1) + "\n")

    def use(self, folder: Path, rows: Sequence[Example], count: int) -> Usage | None:
        """None: it answers prompts."""
        return None


MODULES_FILE = "modules.safetensors"
"""What an objective trained beside the policy, e.g. mask networks: nothing needs it to use the model."""


def save_modules(modules: Mapping[str, nn.Module], folder: Path) -> None:
    """Writes all weights of an objective's modules in a file beside the policy, under `<module>.<parameter>`; no file where there are none."""
    tensors = {f"{name}.{key}": tensor.detach().cpu().contiguous() for name, module in modules.items() for key, tensor in module.state_dict().items()}
    if tensors:
        save_file(tensors, folder / MODULES_FILE)
        allow_readers(folder / MODULES_FILE)


def reward_head_facts(contract: Contract) -> Json:
    """What the head is that an objective leaves beside the policy, for run.json and `finegrain score`; {} for one that leaves none."""
    if contract.reward_head is None:
        return {}
    return {"reward_head": {"method": contract.reward_head, "reward_weight": to_json(contract.objective)["reward_weight"]}}
