"""What one alignment run is asked for: by `prefer`, `sft`, `reward` and the demo alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from finegrain import catalog
from finegrain.commands.settings import Common, MarginScale, Training
from finegrain.configure import method_name, to_kebab
from finegrain.credit.context import Credit
from finegrain.credit.declarations import read_credit
from finegrain.data.gate.settings import Gate
from finegrain.data.sources import parse_sources
from finegrain.errors import UsageError
from finegrain.models.lora import Lora
from finegrain.recipes.session import Session
from finegrain.recipes.training.artifact import AlignedPolicy, Artifact
from finegrain.recipes.training.meta_step import Rise
from finegrain.train.contract import Contract
from finegrain.train.entanglement import check_pairwise
from finegrain.train.optim import Optim
from finegrain.types import Objective


@dataclass(frozen=True)
class Job:
    """One alignment run, as asked for."""

    command: str
    model: Any
    data: str
    out: Path
    objective: Objective
    credit: Credit | None
    common: Common
    training: Training
    lora: Lora
    optim: Optim
    settings: Mapping[str, Any]
    """The same as JSON, for run.json."""
    tokenizer: Any = None
    artifact: Artifact = field(default_factory=AlignedPolicy)
    gate: Gate = Gate()
    displacement: Callable[[Session], Rise] | None = None
    """Makes what moves the parameters while a step's gradient is taken; None: they stay."""
    margin_scale: MarginScale | None = None
    """What becomes of the column `margin`; None: nothing that is trained reads it."""
    start_head: nn.Module | None = None
    """The trained head that a reward model's head goes on from; None: a fresh one."""
    from_reward_model: bool = False
    """Whether the model passed is a reward model, with a head of its own."""


def check_job(job: Job, contract: Contract) -> None:
    """Refuse what contradicts itself: token rewards that nothing writes, and what sharded training does not promise."""
    name = type(job.objective).__name__
    if "reward" in contract.needs and job.credit is None:
        raise UsageError(f"{name} learns from token rewards; name a credit that writes them, e.g. credit:token-reward")
    check_credit(job.credit, contract)
    if job.training.sample_by and contract.sample_by:
        raise UsageError(
            f"{name} draws rows by {contract.sample_by}, which it makes, and --sample-by asks for {job.training.sample_by}; drop --sample-by, or "
            "choose settings of the method with which it reads every row, e.g. objective.sampling:every-row"
        )
    if job.training.diagnose_every:
        check_pairwise(contract)
    if not job.training.shard:
        return
    if job.common.resume or job.training.save_every:
        raise UsageError("--shard keeps no checkpoints to resume from; drop --resume and --save-every, or --shard")
    if contract.outputs:
        raise UsageError(f"{name} trains a head beside the model, which --shard does not split; drop --shard")
    if contract.gradient is not None:
        raise UsageError(f"{name} makes its own gradients, which need whole parameters; drop --shard")


def sources_of(job: Job) -> list[tuple[str, str]]:
    """What the run reads, beside the option that names it."""
    found = [("model", job.model if isinstance(job.model, str) else "")]
    found += [(option, one.source) for option, text in (("data", job.data), ("eval", job.common.eval or "")) for one in parse_sources(text)]
    scorer = None if job.credit is None else read_credit(job.credit).scorer
    return [*found, ("credit.scorer", scorer or "")] if isinstance(scorer, str | None) else found


def check_credit(credit: Credit | None, contract: Contract) -> None:
    """Refuse a credit whose weights mean what the objective cannot multiply by, and name those that fit."""
    if credit is None:
        return
    declared = read_credit(credit)
    if declared.check is not None:
        declared.check()
    meaning = declared.weight_means
    if meaning in contract.weights:
        return
    choices = [(name, choice) for name, own in declared.weight_choices.items() for choice in own]
    fitting = [f"credit.{name}:{to_kebab(choice.__name__)}" for name, choice in choices if choice.weight_means in contract.weights]
    fitting += [f"credit:{name}" for name in catalog.names("credit") if catalog.load("credit", name).weight_means in contract.weights]
    name, needed = f"credit:{method_name(credit)}", " or ".join(sorted(taken.value for taken in contract.weights))
    raise UsageError(
        f"{name} writes {meaning.value}; "
        f"{type(contract.objective).__name__} multiplies by {needed}. Fitting: {', '.join(fitting) or 'none'}"
        "; a credit of your own declares what it writes as `weight_means`"
    )
