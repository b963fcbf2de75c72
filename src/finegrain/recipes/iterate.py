"""`finegrain iterate`: rounds of sampling and training, each an ordinary run whose start and reference is the round's own opponent.

RUN/round-N/ holds the samples as they come, the rows made of them, and the run; a model of LoRA is merged beside it, so that the next round's
reference is the whole of it. RUN itself becomes the last round's model. Every part is complete or goes on, so a stopped run resumes in place.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finegrain import catalog
from finegrain.commands.iterate import IterateSettings
from finegrain.commands.prefer import PreferSettings
from finegrain.commands.settings import Common, Training
from finegrain.configure import to_json
from finegrain.credit.context import Credit
from finegrain.data.gate.settings import Gate
from finegrain.data.records import Shape
from finegrain.data.sources import Data, format_sources
from finegrain.data.store import ExampleStore
from finegrain.errors import CheckpointError, DataError, FinegrainError, Interrupted, UsageError
from finegrain.models.adapter_files import is_adapter
from finegrain.models.lora import Lora
from finegrain.recipes.iteration.axes import Axes, measure_axes
from finegrain.recipes.iteration.checks import check_reward, check_training, identify_reward, list_sources
from finegrain.recipes.iteration.dialogue import write_dialogues
from finegrain.recipes.iteration.results import describe_round, merge_round, publish_rounds, publish_stages
from finegrain.recipes.iteration.round_rows import ROWS, ModelRound, make_rows, read_made
from finegrain.recipes.iteration.stages import OwnStage, StageRuns, run_command
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.session import Session, identify, identify_products, load_data, open_session, peak_rss_bytes, tell_changes, versions
from finegrain.rounds.best_of_n import BestOfN
from finegrain.rounds.context import RoundSettings
from finegrain.rounds.self_play import SelfPlay
from finegrain.rounds.stages import Recipe, Stage
from finegrain.run_record import RunRecord
from finegrain.runs import RunDirectory, read_record
from finegrain.terminal import write_line
from finegrain.train.optim import Optim
from finegrain.types import Json, Objective


def iterate(
    model: str | Path,
    data: Data,
    out: str | Path,
    *,
    rounds: RoundSettings | Recipe = SelfPlay(),
    objective: Objective | None = None,
    credit: Credit | None = None,
    round_lr: Sequence[float] = (),
    common: Common = Common(),
    training: Training = Training(),
    lora: Lora = Lora(),
    optim: Optim = Optim(),
    gate: Gate = Gate(),
) -> dict[str, Any]:
    """Sample and train in rounds; returns what the command prints as its last line. `model` is a path or a Hub name."""
    return _run(
        IterateSettings(
            model=str(model),
            data=format_sources(data),
            out=Path(out),
            rounds=rounds,  # type: ignore[arg-type]
            objective=objective,
            credit=credit,
            round_lr=tuple(round_lr),
            common=common,
            training=training,
            lora=lora,
            optim=optim,
            gate=gate,
        )
    )


def run_iterate(settings: IterateSettings) -> dict[str, Any]:
    """The command: the settings as they were parsed."""
    quiet_transformers()
    return _run(settings)


@dataclass
class Iteration:
    """A run in rounds while it runs."""

    settings: IterateSettings
    directory: RunDirectory
    examples: ExampleStore
    slices: Sequence[np.ndarray]
    """Places of the rows of each round."""
    opened: Session | None
    """The start model, until the first round has sampled."""
    record: RunRecord

    def folder(self, number: int) -> Path:
        """Of a round, from 1."""
        return self.settings.out / f"round-{number}"

    def start_of(self, number: int) -> str:
        """The model of the start of a round: the one that the round before came to."""
        return self.settings.model if number == 1 else str(self.model_of(number - 1))

    def model_of(self, number: int) -> Path:
        """The model of the end of a round."""
        return self.folder(number) / ("model" if self.settings.lora.rank else "run")

    def run_all(self) -> Path:
        """Every round that is not finished; returns the page."""
        lines: list[Json] = []
        for number in range(1, len(self.slices) + 1):
            write_line(f"round {number} of {len(self.slices)}: {len(self.slices[number - 1])} prompts, model {self.start_of(number)}")
            made = self._make(number)
            run = self._train(number)
            lines.append(describe_round(made, run, number))
            self.record.rounds = [*lines]
            self.write("running")
        runs = [self.folder(number) / "run" for number in range(1, len(lines) + 1)]
        last = read_record(runs[-1])
        sums = {name: sum(line[name] or 0 for line in lines) for name in ("steps", "tokens", "train_seconds")}
        self.record = self.record.plus({**sums, "learning_rate": last.learning_rate, "evaluation": last.evaluation, "last": last.last})
        page = publish_rounds(self.settings.out, self.model_of(len(lines)), runs, self.record)
        self.write("finished")
        return page

    def run_stages(self, stages: StageRuns) -> Json:
        """Every stage of a recipe that is not finished; returns what is printed."""
        self.opened = None

        def tell(lines: list[Json]) -> None:
            self.record.stages = [*lines]
            self.write("running")

        lines = stages.run_all(tell)
        publish_stages(self.settings.out, stages.last_model(), self.record)
        self.write("finished")
        return {"out": str(self.settings.out), "status": "finished", "stages": [line["stage"] for line in lines]}

    def _make(self, number: int) -> Json:
        """The rows of a round, by the model of its start; those of an earlier part of the run are there already."""
        folder = self.folder(number)
        if (made := read_made(folder)) is not None:
            self.opened = None
            return made
        folder.mkdir(exist_ok=True)
        session = self.opened or _open(self.settings, self.start_of(number))
        self.opened = None
        assert not isinstance(self.settings.rounds, Recipe)
        context = ModelRound(session, self.examples.take(self.slices[number - 1]), number, folder)
        return make_rows(self.settings.rounds, context, self.settings.model)

    def _train(self, number: int) -> RunRecord:
        """The run of a round, from its beginning, its checkpoint or not at all."""
        settings, run = self.settings, self.folder(number) / "run"
        common = replace(settings.common, seed=settings.common.seed + number - 1, limit=None, resume=False)
        common = replace(common, lr=settings.round_lr[number - 1]) if settings.round_lr else common
        shared = {name: getattr(settings, name) for name in ("objective", "credit", "training", "lora", "optim", "gate")}
        own = PreferSettings(model=self.start_of(number), data=str(self.folder(number) / ROWS), out=run, common=common, **shared)
        record = run_command("prefer", own, run)
        if settings.lora.rank and not self.model_of(number).exists():
            merge_round(run, self.model_of(number), dtype=settings.common.dtype, trust_remote_code=settings.training.trust_remote_code)
        return record

    def write(self, status: str, reason: str | None = None) -> None:
        """run.json as things stand."""
        self.record = self.record.plus({"status": status, "reason": reason, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
        self.record.peak_rss_bytes = peak_rss_bytes()
        self.directory.write_record(self.record)


def _run(settings: IterateSettings) -> dict[str, Any]:
    rounds = settings.rounds
    if settings.objective is None and isinstance(rounds, RoundSettings):
        settings = replace(settings, objective=catalog.load("objective", rounds.objective)())
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("`finegrain iterate` runs in one process; start it without torchrun")
    if settings.lora.rank and is_adapter(settings.model):
        raise UsageError(f"{settings.model} has an adapter, which every round continues to train; remove --lora.rank, or merge the adapter first")
    directory = RunDirectory(settings.out)
    if not settings.common.dry_run:
        directory.check_apart(list_sources(settings))
        directory.check(to_json(settings), resume=settings.common.resume)
    session = _open(settings, settings.model)
    loaded = load_data(session, settings.data, Shape(rounds.shape), limit=settings.common.limit, gate=settings.gate)
    slices = [] if isinstance(rounds, Recipe) else split_rows(len(loaded.examples), rounds, settings.common.seed)
    stages = StageRuns.open(settings, _own_stages(settings, loaded.examples)) if isinstance(rounds, Recipe) else None
    if stages is None:
        check_training(session, settings)
    reward = identify_reward(session, settings)
    if settings.common.dry_run:
        return _estimate(settings, slices) if stages is None else {"status": "dry run", "rows": len(loaded.examples)}
    record = RunRecord(command="iterate", settings=to_json(settings), versions=versions(), data=loaded.report, model=identify(session))
    record.reward = reward
    record.engine = identify_products(session)
    record.machine = {"device": str(session.device), "processes": 1, "threads": torch.get_num_threads()}
    directory.check_data(record.data or {})
    directory.check_model(record.model or {})
    check_reward(directory, reward)
    record.changed = tell_changes(session, record, directory, resume=settings.common.resume) or None
    run = Iteration(settings, directory, loaded.examples, slices, session, record)
    del session
    with directory.locked():
        directory.check(to_json(settings), resume=settings.common.resume)
        with _record_failure(run.write):
            run.write("running")
            if stages is not None:
                return run.run_stages(stages)
            page = run.run_all()
    write_line(f"report: {page}")
    lines: Sequence[Mapping[str, Any]] = run.record.rounds or []
    shown = [{name: line[name] for name in ("round", "rows", "trained", "loss", "seconds")} for line in lines]
    return {"out": str(settings.out), "status": "finished", "rounds": shown, "evaluation": run.record.evaluation}


def _own_stages(settings: IterateSettings, examples: ExampleStore) -> dict[str, OwnStage]:
    """Stages of recipes that are no commands: sampled rows, dialogues, and what a policy is worth."""

    def rows(stage: Stage, folder: Path) -> Json:
        asked = stage.settings
        if (made := read_made(folder)) is not None:
            return made
        method = SelfPlay(**{name: asked[name] for name in ("count", "rows", "max_new_tokens", "temperature")})
        part = examples.take(split_rows(len(examples), method, settings.common.seed)[asked["number"] - 1])
        return make_rows(method, ModelRound(_open(settings, asked["model"]), part, asked["number"], folder), settings.model)

    def dialogue(stage: Stage, folder: Path) -> Json:
        asked, common = stage.settings, settings.common
        return write_dialogues(asked["data"], folder, template=asked["template"], share=asked["held_out"], limit=common.limit, seed=common.seed)

    def axes(stage: Stage, folder: Path) -> Json:
        asked = {name: value for name, value in stage.settings.items() if name != "model"}
        session = _open(settings, stage.settings["model"])
        return measure_axes(session, Axes(**{**asked, "stop": tuple(asked["stop"])}))

    return {"rows": rows, "dialogue": dialogue, "axes": axes}


def split_rows(rows: int, rounds: RoundSettings, seed: int) -> list[np.ndarray]:
    """Places of the rows of each round, in the order of the data: parts of equal size drawn by the seed, or all of them each time."""
    if rounds.rows == "all":
        return [np.arange(rows)] * rounds.count
    if rounds.count > rows:
        raise DataError(f"--rounds.count {rounds.count}: {rows} rows have no part for each round; lower it, or read all rows with --rounds.rows all")
    return [np.sort(part) for part in np.array_split(np.random.default_rng([seed, rows]).permutation(rows), rounds.count)]


def _open(settings: IterateSettings, model: str) -> Session:
    """A model that samples, and nothing trains."""
    return open_session(model, settings.common, seed=settings.common.seed, trust_remote_code=settings.training.trust_remote_code)


def _estimate(settings: IterateSettings, slices: Sequence[np.ndarray]) -> Json:
    """What --dry-run prints: how much would be sampled; a dry run of `prefer` says what a round's training needs."""
    answers = [len(places) * (settings.rounds.per_prompt if isinstance(settings.rounds, BestOfN) else 1) for places in slices]
    most = [count * settings.rounds.max_new_tokens for count in answers]
    write_line(f"{len(slices)} rounds of {', '.join(str(len(places)) for places in slices)} prompts; at most {sum(most)} tokens are sampled")
    return {"status": "dry run", "prompts": [len(places) for places in slices], "answers": answers, "most_sampled_tokens": sum(most)}


@contextmanager
def _record_failure(write: Callable[[str, str], None]) -> Iterator[None]:
    """run.json says how a run ended that did not finish; a full disk may prevent it."""
    try:
        yield
    except (FinegrainError, KeyboardInterrupt, OSError) as error:
        stopped = isinstance(error, KeyboardInterrupt)
        words = str(error) if isinstance(error, (FinegrainError, Interrupted)) else "stopped" if stopped else f"{error}"
        with suppress(OSError):
            write("interrupted" if stopped else "failed", words)
        if stopped and "--resume" not in words:
            raise Interrupted(f"{words}; go on with the same command and --resume") from None
        if isinstance(error, OSError):
            raise CheckpointError(f"cannot write the run: {error}; go on with the same command and --resume") from error
        raise
