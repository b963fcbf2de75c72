"""What a run in rounds knows before it samples: whether its reward, its training settings and its held-out rows can be used at all."""

from finegrain.commands.iterate import IterateSettings
from finegrain.data.categories import Categories
from finegrain.data.sources import parse_sources
from finegrain.errors import CheckpointError
from finegrain.recipes.session import Session, load_data
from finegrain.recipes.training.data import check_columns, shape_of
from finegrain.recipes.training.job import Job, check_job
from finegrain.rounds.context import JudgedRounds
from finegrain.rounds.stages import Recipe
from finegrain.runs import RunDirectory, is_other_reward
from finegrain.scoring.opening import open_reward
from finegrain.scoring.sources import RewardOptions
from finegrain.train.read_contract import contract_of
from finegrain.types import Json


def list_sources(settings: IterateSettings) -> list[tuple[str, str]]:
    """What the run reads, beside the option that names it."""
    read = (("data", settings.data), ("eval", settings.common.eval or ""))
    found = [("model", settings.model), *((option, one.source) for option, text in read for one in parse_sources(text))]
    return [*found, ("rounds.reward", settings.rounds.reward)] if isinstance(settings.rounds, JudgedRounds | Recipe) else found


def check_training(session: Session, settings: IterateSettings) -> None:
    """Raises what every round's training would raise of its settings and of the rows of --eval."""
    contract = contract_of(settings.objective, settings.common.seed)
    shared = {
        name: getattr(settings, name) for name in ("model", "data", "out", "objective", "credit", "common", "training", "lora", "optim", "gate")
    }
    check_job(Job(command="prefer", settings={}, **shared), contract)
    if settings.common.eval is not None:
        held = load_data(
            session,
            settings.common.eval,
            shape_of(contract),
            limit=None,
            gate=settings.gate,
            categories=Categories(contract.categories),
            assumed=contract.assumed,
        )
        check_columns(contract, held.examples, "--eval")


def identify_reward(session: Session, settings: IterateSettings) -> Json | None:
    """The reward that scores samples by its content; None without one. Raises what opening it raises."""
    if not isinstance(settings.rounds, JudgedRounds | Recipe) or not settings.rounds.reward:
        return None
    options = RewardOptions(runtime=lambda: session.runtime, max_length=session.max_length)
    return open_reward(settings.rounds.reward, options).identity()


def check_reward(directory: RunDirectory, reward: Json | None) -> None:
    """Refuse to go on with a run whose earlier rounds another reward has scored."""
    before = directory.read_record().reward if (directory.path / "run.json").exists() else None
    if reward is not None and is_other_reward(before, reward):
        raise CheckpointError(f"the reward of the run in {directory.path} is another one than it began with; bring it back, or give another --out")
