"""`finegrain reward`: train a reward model that judges answers, segments or tokens, and says how sure it is where its head knows."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from finegrain.data.gate.settings import Gate
from finegrain.models.lora import Lora
from finegrain.recipes.settings import Common, Training
from finegrain.train.optim import Optim


@dataclass(frozen=True, kw_only=True)
class Reward:
    """Train a reward model: head:NAME says what it judges, loss:NAME what it learns from."""

    model: str
    """Checkpoint folder or Hub name of a causal language model."""
    data: str
    """json, jsonl(.gz), csv or parquet file, a folder of them, or a Hub name."""
    out: Path
    """Run directory: the reward model in the stock classification layout, run.json, metrics.jsonl."""
    head: Any
    loss: Any = None
    common: Common = field(default_factory=Common)
    training: Training = field(default_factory=Training)
    lora: Lora = field(default_factory=Lora)
    optim: Optim = field(default_factory=Optim)
    gate: Gate = field(default_factory=Gate)


def reward(
    model: Any,
    data: str | Path,
    out: str | Path,
    *,
    head: Any = None,
    loss: Any = None,
    tokenizer: Any = None,
    common: Common = Common(),
    training: Training = Training(),
    lora: Lora = Lora(),
    optim: Optim = Optim(),
    gate: Gate = Gate(),
) -> dict[str, Any]:
    """Train a reward model; arguments and result as those of `prefer`. The head is a token head by default, the loss Bradley-Terry."""
    from finegrain.recipes.entry import model_name
    from finegrain.rewards.token import Token

    settings = Reward(
        model=model_name(model),
        data=str(data),
        out=Path(out),
        head=head or Token(),
        loss=loss,
        common=common,
        training=training,
        lora=lora,
        optim=optim,
        gate=gate,
    )
    return start_reward(settings, model=model, tokenizer=tokenizer)


def start_reward(settings: Reward, *, model: Any, tokenizer: Any = None) -> dict[str, Any]:
    """Run the settings; returns what is printed as the last line of stdout."""
    from finegrain.configure import to_json
    from finegrain.recipes.alignment import Job, align  # here, so that `--help` answers before transformers loads
    from finegrain.recipes.reward_product import TrainedReward
    from finegrain.rewards.bradley_terry import BradleyTerry
    from finegrain.rewards.fit import RewardFit

    settings = replace(settings, loss=settings.loss or BradleyTerry())
    values = {name.name: getattr(settings, name.name) for name in fields(settings) if name.name not in ("head", "loss", "model")}
    values["training"] = replace(settings.training, samples=0)
    objective = RewardFit(settings.head, settings.loss)
    written = to_json(settings)
    product = TrainedReward(settings.head, {"head": written["head"], "loss": written["loss"]})
    job = Job(command="reward", model=model, objective=objective, credit=None, settings=written, tokenizer=tokenizer, product=product, **values)
    return align(job)


def run_reward(settings: Reward) -> dict[str, Any]:
    """The command: the settings as they were parsed."""
    from finegrain.recipes.entry import quiet_transformers

    quiet_transformers()
    return start_reward(settings, model=settings.model)
