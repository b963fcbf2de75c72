"""`finegrain reward`: train a reward model of answers, segments or tokens, with uncertainty if its head has it."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from finegrain.commands.reward import KEEP_TIES, RewardSettings
from finegrain.commands.settings import Common, MarginScale, Training
from finegrain.configure import to_json
from finegrain.data.gate.settings import Gate
from finegrain.data.sources import Data, format_sources
from finegrain.errors import UsageError
from finegrain.models.lora import Lora
from finegrain.recipes.entry import model_name
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.training.align import align
from finegrain.recipes.training.job import Job
from finegrain.recipes.training.meta_step import check_meta, rise_of
from finegrain.recipes.training.reward_artifact import RewardArtifact
from finegrain.recipes.training.stage_1 import stage_1_of, start_head_of
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.declarations import read_loss
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.meta_rm import Meta, NoMeta
from finegrain.rewards.token import Token
from finegrain.train.optim import Optim

NO_META = NoMeta()


def train_reward_model(
    model: Any,
    data: Data,
    out: str | Path,
    *,
    head: Any = None,
    loss: Any = None,
    meta: Meta = NO_META,
    frozen: bool = False,
    margin_scale: MarginScale = "median",
    tokenizer: Any = None,
    common: Common = Common(),
    training: Training = Training(),
    lora: Lora = Lora(),
    optim: Optim = Optim(),
    gate: Gate = KEEP_TIES,
) -> dict[str, Any]:
    """Train a reward model; arguments and result as those of `prefer`. By default the head is a token head and the loss Bradley-Terry."""
    settings = RewardSettings(
        model=model_name(model),
        data=format_sources(data),
        out=Path(out),
        head=head or Token(),
        loss=loss,
        meta=meta,
        frozen=frozen,
        margin_scale=margin_scale,
        common=common,
        training=training,
        lora=lora,
        optim=optim,
        gate=gate,
    )
    return start_reward(settings, model=model, tokenizer=tokenizer)


def start_reward(settings: RewardSettings, *, model: Any, tokenizer: Any = None) -> dict[str, Any]:
    """Run the settings; returns what is printed as the last line of stdout."""
    settings = replace(settings, loss=settings.loss or BradleyTerry())
    values = {name.name: getattr(settings, name.name) for name in fields(settings) if name.name not in ("head", "loss", "meta", "model", "frozen")}
    loss = read_loss(settings.loss)
    if loss.calibrate and not settings.training.holdout:
        raise UsageError("--loss.calibrate fits a temperature on held-out rows, and --holdout 0 leaves none")
    objective = RewardFit(settings.head, settings.loss, settings.frozen)
    if objective.frozen_backbone and settings.lora.rank:
        frozen_by = "--frozen" if settings.frozen else type(settings.loss).__name__
        raise UsageError(f"{frozen_by} leaves the backbone as it is, and --lora.rank trains an adapter of it; drop one of them")
    written = to_json(settings)
    displacement = _make_displacement(settings)
    stage_1 = stage_1_of(settings.model if isinstance(model, Path) else model, objective)
    if stage_1 is not None:
        model = stage_1.policy
    reads = stage_1 if loss.reads_targets else None
    artifact = RewardArtifact(settings.head, {"head": written["head"], "loss": written["loss"]}, reads)
    job = Job(
        command="reward",
        model=model,
        objective=objective,
        credit=None,
        settings=written,
        tokenizer=tokenizer,
        artifact=artifact,
        displacement=displacement,
        start_head=start_head_of(stage_1, objective),
        from_reward_model=stage_1 is not None,
        **values,
    )
    return align(job)


def _make_displacement(settings: RewardSettings) -> Any:
    """Where the gradient of a step is taken, if not at the weights themselves; None for ordinary steps."""
    if isinstance(settings.meta, NoMeta):
        return None
    check_meta(settings.head, settings.meta, frozen=settings.frozen)
    return partial(rise_of, head=settings.head, settings=settings.meta, gate=settings.gate)


def run_reward(settings: RewardSettings) -> dict[str, Any]:
    """The command: the settings as they were parsed."""
    quiet_transformers()
    return start_reward(settings, model=settings.model)
