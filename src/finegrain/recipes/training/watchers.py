"""Who sees every logged line of a run while it trains: the person on stderr, a tracker such as TensorBoard, and a warning of a weak gradient."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from accelerate import Accelerator

from finegrain.commands.settings import Common
from finegrain.errors import UsageError
from finegrain.ops.balance import LITTLE, ranking_share
from finegrain.recipes.progress import show_progress
from finegrain.train.distributed import rank
from finegrain.types import Json

Watcher = Callable[[dict[str, Any]], None]
"""Gets a logged line."""


@runtime_checkable
class Tracked(Protocol):
    """What a tracker is told of a job."""

    @property
    def out(self) -> Path:
        """Its run directory."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """As JSON."""

    @property
    def common(self) -> Common:
        """Where it computes."""


@contextmanager
def open_watchers(job: Tracked, track: str, steps: int, say: Callable[[str], None]) -> Iterator[list[Watcher]]:
    """Tracker, progress and warning of a run of so many steps."""
    if rank():
        yield [ShareWarning(say)]
        return
    with _open_tracker(job, track) as trackers, show_progress("train", "step", steps) as tell:
        yield [*trackers, lambda line: tell(line["step"], _facts(line)), ShareWarning(say)]


@contextmanager
def _open_tracker(job: Tracked, name: str) -> Iterator[list[Watcher]]:
    """Sends the numbers of every line to the tracker that was asked for, by accelerate."""
    if name == "none":
        yield []
        return
    try:
        accelerator = Accelerator(cpu=job.common.device == "cpu", log_with=name, project_dir=str(job.out))
        flat = {key: json.dumps(value) if isinstance(value, (dict, list)) else str(value) for key, value in job.settings.items()}
        accelerator.init_trackers("finegrain", config=flat)
    except (ValueError, ImportError) as error:
        raise UsageError(f"--track {name}: {error}") from error
    try:
        yield [lambda line: accelerator.log({k: v for k, v in line.items() if isinstance(v, (int, float))}, step=line["step"])]
    finally:
        accelerator.end_training()


SHOWN = {"loss": "loss", "rewards/margins": "margin", "reward": "reward", "kl": "KL", "eval_reward": "held-out reward"}
"""Numbers of a line that a person is shown, with their names."""


def _facts(line: dict[str, Any]) -> str:
    shown = [f"{words} {line[name]:.4f}" for name, words in SHOWN.items() if isinstance(line.get(name), float)]
    return "  ".join([*shown, f"{line['tokens_per_second']:.0f} tokens/s" if "tokens_per_second" in line else "skipped"])


class ShareWarning:
    """A watcher of logged lines that speaks at most once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, False

    def __call__(self, line: dict[str, Any]) -> None:
        """Warn where both parts were measured and the ranking, which has a gradient at all, has little of the whole."""
        ranking, bound = line.get("grad/ranking", 0.0), line.get("grad/bound", 0.0)
        if self._said or not ranking or ranking_share(ranking, bound) >= LITTLE:
            return
        self._said = True
        self._say(
            f"warning: at step {line['step']} the ranking has {ranking_share(ranking, bound):.1%} of the gradient (norms: ranking {ranking:.3g}, "
            f"bound {bound:.3g}), so the model hardly learns to rank; balance:start-share (the default) gives it half at the start"
        )


def describe_start(lines: Sequence[dict[str, Any]]) -> Json:
    """For run.json: both norms and the bound's weight as the first step found them; {} for an objective that is not in two parts."""
    if not lines or "grad/ranking" not in lines[0]:
        return {}
    ranking, bound = lines[0]["grad/ranking"], lines[0]["grad/bound"]
    return {
        "gradient_at_start": {"ranking": ranking, "bound": bound, "share": ranking_share(ranking, bound), "bound_weight": lines[0]["bound_weight"]}
    }
