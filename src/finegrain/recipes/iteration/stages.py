"""The stages of a recipe: each is a run of a command in a folder of its own, finished once its run.json says so, and never run again then."""

import gc
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finegrain.commands import COMMANDS, recipe, resolve
from finegrain.commands.iterate import IterateSettings
from finegrain.configure import settings_from_file, to_json
from finegrain.errors import CheckpointError, UsageError
from finegrain.models.adapter_files import is_adapter
from finegrain.models.load_errors import one_line
from finegrain.recipes.iteration.results import drop_checkpoints, merge_round
from finegrain.recipes.session import versions
from finegrain.rounds.stages import Recipe, Stage
from finegrain.run_record import RunRecord
from finegrain.runs import REPEATED, RunDirectory, read_record
from finegrain.terminal import write_line
from finegrain.types import Json

READS = ("model", "data", "reward", "critic")
"""Settings that name files: a folder that was moved has them under other names, and their content is checked."""
TRAINS = frozenset({"sft", "prefer", "online", "reward"})
"""Commands with a run directory of their own, which go on from a checkpoint."""
POLICIES = frozenset({"sft", "prefer", "online"})
OF_ONLINE = ("micro_tokens", "gradient_checkpointing", "train_only", "save_every", "track", "trust_remote_code")
"""Of `Training`, what `OnlineTraining` has too; batches, epochs and held-out rows are other things there."""

OwnStage = Callable[[Stage, Path], Json]
"""(stage, its folder) -> what it came to."""


def run_command(command: str, settings: Any, folder: Path) -> RunRecord:
    """The finished run of a command in its folder: from its beginning, its checkpoint or not at all."""
    begun = (folder / "run.json").exists()
    if begun and read_record(folder).status == "finished":
        return read_record(folder)
    gc.collect()  # the models of earlier stages
    repeated = REPEATED.set(None)  # `finegrain again` repeats the whole, whose data are not this stage's
    try:
        if command in TRAINS:
            recipe(COMMANDS[command])(_resumed(settings, folder) if begun else settings)
        else:
            _clear(folder)
            result = recipe(COMMANDS[command])(settings)
            record_stage(folder, RunRecord(command=command, settings=to_json(settings)).plus({"result": result}))
    finally:
        REPEATED.reset(repeated)
    drop_checkpoints(folder)
    return read_record(folder)


def record_stage(folder: Path, record: RunRecord) -> None:
    """run.json of a stage whose command writes none."""
    record = record.plus({"status": "finished", "versions": versions(), "date": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    RunDirectory(folder).write_record(record)


def _resumed(settings: Any, folder: Path) -> Any:
    """The settings of a run that goes on; its record has the files under the names that they have now."""
    record, now = read_record(folder), to_json(settings)
    moved = {**(record.settings or {}), **{name: now[name] for name in READS if name in now}}
    RunDirectory(folder).write_record(record.plus({"settings": moved}))
    now["common"]["resume"] = True
    return type(settings)(**settings_from_file(type(settings), now, str(folder / "run.json")))


def _clear(folder: Path) -> None:
    """An empty folder: what an unfinished stage left would stand in its own way."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


@dataclass
class StageRuns:
    """The stages of a run: a `StagesTold`."""

    settings: IterateSettings
    own: Mapping[str, OwnStage]
    """Stages that are no commands, by name."""
    done: list[Stage] = field(default_factory=list)
    further: Json = field(default_factory=dict)
    """What the file of settings says, by stage or command."""

    @classmethod
    def open(cls, settings: IterateSettings, own: Mapping[str, OwnStage]) -> "StageRuns":
        """Before the first stage; raises UsageError for a file of settings that cannot be read."""
        assert isinstance(settings.rounds, Recipe)
        return cls(settings, own, further=read_further(settings.rounds.stages))

    @property
    def model(self) -> str:
        """The start model."""
        return self.settings.model

    @property
    def data(self) -> str:
        """The data."""
        return self.settings.data

    @property
    def objective(self) -> Any:
        """The objective as JSON, where the command line names one."""
        return None if self.settings.objective is None else to_json(self.settings.objective)

    def path(self, name: str) -> str:
        """The folder of a stage."""
        return str(self.settings.out / name)

    def result(self, name: str) -> Mapping[str, Any]:
        """What a finished stage came to: its record's keys, and those of its result."""
        record = read_record(self.settings.out / name).as_json()
        return {**record, **record.get("result", {})}

    def sampled(self, name: str) -> str:
        """The rows that a finished stage `rows` made."""
        return f"{self.path(name)}/rows.jsonl"

    def trained(self, name: str) -> str:
        """The model of a finished stage; an adapter that it put on its base is merged beside it, once."""
        run = self.settings.out / name
        if not self.settings.lora.rank or not is_adapter(str(run)):
            return str(run)
        merged = run.parent / f"{run.name}-model"
        if not merged.exists():
            merge_round(run, merged, dtype=self.settings.common.dtype, trust_remote_code=self.settings.training.trust_remote_code)
        return str(merged)

    def run_all(self, write: Callable[[list[Json]], None]) -> list[Json]:
        """Every stage that is not finished; after each, `write` is told of all so far."""
        lines: list[Json] = []
        assert isinstance(self.settings.rounds, Recipe)
        for stage in self.settings.rounds(self):
            folder = self.settings.out / stage.name
            write_line(f"stage {stage.name}: {stage.command}")
            record = self._run(stage, folder)
            self.done.append(stage)
            lines.append(describe_stage(stage, record))
            write([*lines])
        if unknown := sorted(self.further.keys() - {name for stage in self.done for name in (stage.name, stage.command)}):
            write_line(f"warning: --rounds.stages has settings of {', '.join(unknown)}, and no such stage ran")
        return lines

    def last_model(self) -> Path | None:
        """The model of the last stage that trained a policy; None where none did."""
        found = [stage.name for stage in self.done if stage.command in POLICIES]
        return Path(self.trained(found[-1])) if found else None

    def _run(self, stage: Stage, folder: Path) -> RunRecord:
        if stage.command not in self.own:
            return run_command(stage.command, self.settings_of(stage), folder)
        if not (folder / "run.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            result = self.own[stage.command](stage, folder)
            record_stage(folder, RunRecord(command=stage.command, settings=stage.settings).plus({"result": result}))
        return read_record(folder)

    def settings_of(self, stage: Stage) -> Any:
        """The settings object of a stage: of the command line, then the recipe's, then those of the file by command and by name."""
        kind = resolve(COMMANDS[stage.command].settings)
        found = merge_settings(self._shared(stage.command), stage.settings)
        for key in dict.fromkeys((stage.command, stage.name)):
            found = merge_settings(found, self.further.get(key, {}))
        found["out"] = self.path(stage.name) if stage.command in TRAINS else f"{self.path(stage.name)}/rows.jsonl"
        where = f"settings of the stage {stage.name}"
        return kind(**settings_from_file(kind, found, where))

    def _shared(self, command: str) -> Json:
        """What the command line says of every stage of this command."""
        asked = self.settings
        common = {**to_json(asked.common), "resume": False, "dry_run": False, "limit": None, "eval": None}
        if command == "curate":
            names = ("max_length", "device", "dtype", "seed")
            return {**{name: common[name] for name in names}, "limit": asked.common.limit, "gate": to_json(asked.gate)}
        training, found = to_json(asked.training), {"common": common, "optim": to_json(asked.optim)}
        if command == "reward":
            return {**found, "training": training}
        found |= {"lora": to_json(asked.lora), "gate": to_json(asked.gate)}
        if command == "online":
            return {**found, "training": {name: training[name] for name in OF_ONLINE}}
        credit = {} if asked.credit is None or command != "prefer" else {"credit": to_json(asked.credit)}
        return {**found, "training": training, **credit, "objective": "nll" if command == "sft" else "dpo"}


def merge_settings(base: Mapping[str, Any], more: Mapping[str, Any]) -> Json:
    """The settings of `base` with those of `more` in their place; another method or choice takes the place of the whole."""
    found = dict(base)
    for name, value in more.items():
        before = found.get(name)
        other = isinstance(value, Mapping) and any(key in value for key in ("method", "choice"))
        same = isinstance(before, Mapping) and isinstance(value, Mapping) and (not other or _kind(before) == _kind(value))
        found[name] = merge_settings(before, value) if same else value  # type: ignore[arg-type]
    return found


def _kind(settings: Mapping[str, Any]) -> object:
    return settings.get("method", settings.get("choice"))


def read_further(file: str) -> Json:
    """The settings by stage of a file; {} without one."""
    if not file:
        return {}
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read --rounds.stages {file}: {one_line(error)}") from error
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise UsageError(f"--rounds.stages {file} holds no settings by stage: {{NAME: {{SETTING: VALUE}}}}")
    return found


def describe_stage(stage: Stage, record: RunRecord) -> Json:
    """A line of the table."""
    found = record.as_json()
    if record.status != "finished":
        raise CheckpointError(f"the stage {stage.name} ended as {record.status}; go on with the same command and --resume")
    names = ("rows", "pairs", "answers", "steps", "learning_rate", "train_seconds", "evaluation_before", "evaluation", "result")
    return {"stage": stage.name, "command": stage.command, **{name: found[name] for name in names if name in found}}
