"""The run directory: run.json (what was asked and what came of it), metrics.jsonl (a line per step), gradients.jsonl, samples.jsonl."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.errors import CheckpointError
from finegrain.files import LOCK, PART, lock_folder, replace_file
from finegrain.run_record import PRODUCTS, RunRecord

METRICS = "metrics.jsonl"
GRADIENTS = "gradients.jsonl"
"""What --diagnose-every measured, a line per pair."""
ROLLOUTS = "rollouts.jsonl"
"""Sampled answers of an online run with what was found of their tokens, a line per answer."""

FREE = frozenset(
    f"{group}{name}"
    for group, names in {
        "": ("out", "reward_timeout"),
        "common.": ("resume", "dry_run", "device"),
        "training.": ("save_every", "track", "samples", "examined", "diagnose_every"),
    }.items()
    for name in names
)
"""Settings that may change when a run is resumed: they do not change its numbers."""

MODEL_PARTS = {"sha256": "weights", "tokenizer_sha256": "tokenizer"}
"""Hashes in run.json, in words."""
REWARD_HASHES = ("file", "weights", "tokenizer")
"""What tells a reward from another one, of a function's file or of a model; device and arithmetic may differ in a resumed run."""
REPEATED: ContextVar[RunRecord | None] = ContextVar("REPEATED", default=None)
"""The record of the run that `finegrain again` repeats."""
OF_THE_DESKTOP = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""What a file manager leaves in an empty folder."""


@dataclass(frozen=True)
class RunDirectory:
    """Files of one run; every file is complete or absent, metrics.jsonl up to its last full line."""

    path: Path

    def check(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Refuse to touch what is not this run's: a folder of other files, without resume any run, with resume one of other settings."""
        self._check_own()
        if not (self.path / "run.json").exists():
            return
        if not resume:
            raise CheckpointError(f"{self.path} already holds a run; give another --out, or --resume to go on with it")
        before, now = flat(self._stored("settings")), flat(json.loads(json.dumps(settings, default=str)))
        other = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name) and name not in FREE)
        if other:
            named = ", ".join(f"{name} was {before.get(name)} and is {now.get(name)}" for name in other[:5])
            raise CheckpointError(f"{self.path} holds a run with other settings ({named}); resume with the same ones, or give another --out")

    def _check_own(self) -> None:
        """A run directory is a folder of its own, under its own name, and holds what a run writes."""
        if self.path.is_symlink():
            raise CheckpointError(f"--out {self.path} is a link to {os.readlink(self.path)}; give the folder that it leads to, or another one")
        try:
            found = sorted(self.path.iterdir()) if self.path.exists() else []
        except OSError as error:
            raise CheckpointError(f"cannot create {self.path}: {error}") from error
        links = [file.name for file in found if file.is_symlink()]
        if links:
            raise CheckpointError(f"{self.path} holds links ({', '.join(links[:3])}), through which a run would write elsewhere; give another --out")
        foreign = [file.name for file in found if file.name != LOCK and not file.name.endswith(PART) and file.name not in OF_THE_DESKTOP]
        if foreign and "run.json" not in foreign:
            named = ", ".join(foreign[:3]) + (" …" if len(foreign) > 3 else "")
            raise CheckpointError(f"{self.path} holds files that no run wrote ({named}); give a folder of its own as --out")

    def check_apart(self, sources: Iterable[tuple[str, str]]) -> None:
        """Refuse a directory that is, or lies in, what the run reads (option and path; a name of the Hub is no path here)."""
        own = self.path.resolve()
        for option, source in sources:
            read = Path(source)
            if not source or not os.path.exists(source):
                continue
            if own == read.resolve() or (option != "model" and own.is_relative_to(read.resolve())):
                raise CheckpointError(f"--out {self.path} is {'' if own == read.resolve() else 'inside '}what --{option} reads; give another --out")

    def check_data(self, report: Mapping[str, Any], part: str = "data") -> None:
        """Refuse to go on with a run whose data (`part` of its record) were other ones."""
        if not (self.path / "run.json").exists():
            return
        before = self._stored(part).get("sha256")
        if before is not None and before != report.get("sha256"):
            raise CheckpointError(f"the run in {self.path} was started on other data than {report.get('source')} holds now; give another --out")

    def check_model(self, model: Mapping[str, Any]) -> None:
        """Refuse to go on with a run that began from other weights, or read its rows with another tokenizer."""
        if not (self.path / "run.json").exists():
            return
        before = self._stored("model")
        other = [words for name, words in MODEL_PARTS.items() if name in before and before[name] != model.get(name)]
        if other:
            told = f"{' and '.join(other)} of {model.get('source')} are not those that the run in {self.path} began with"
            raise CheckpointError(f"{told}; bring them back, or give another --out")

    def check_rewards(self, facts: Mapping[str, Any]) -> list[str]:
        """Refuse to go on with a run whose reward models of the same names were other ones.

        Returns a line for every function whose file has changed: it may have been mended after it had failed.
        """
        if not (self.path / "run.json").exists():
            return []
        parts = ("rewards", "baselines")
        before, now = ({name: one for part in parts for name, one in _by_name(found.get(part)).items()} for found in (self._stored("rewards"), facts))
        other = [name for name, own in now.items() if name in before and is_other_reward(before[name], own)]
        if models := [name for name in other if now[name].get("kind") != "function"]:
            words = f"the content of {', '.join(models)} is not what the run in {self.path} began with"
            raise CheckpointError(f"{words}; bring it back, or give another --out")
        return [f"resume: the file of the reward function {name} has changed; buffers from here on are judged by what it says now" for name in other]

    def check_references(self, facts: Mapping[str, Any]) -> None:
        """Refuse to go on with a run that compared itself with other weights under the same names."""
        if not (self.path / "run.json").exists():
            return
        before = self._stored("references")
        if other := [name for name, own in facts.items() if name in before and before[name] != own]:
            raise CheckpointError(
                f"the weights of {', '.join(other)} are not what the run in {self.path} began with; bring them back, or give another --out"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and let no other process write to it until the end."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot create {self.path}: {error}") from error
        with lock_folder(self.path):
            yield

    def write_record(self, record: RunRecord) -> None:
        """Replace run.json."""
        replace_file(self.path / "run.json", json.dumps(record.as_json(), indent=2, default=str) + "\n")

    def read_record(self) -> RunRecord:
        """run.json."""
        return read_record(self.path / "run.json")

    def _stored(self, part: str) -> dict[str, Any]:
        """An object within run.json."""
        found = getattr(self.read_record(), part)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise CheckpointError(f"{self.path / 'run.json'} is damaged: {part} is no object of names and values; give another --out")
        return found

    def append_rollouts(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Lines of rollouts.jsonl."""
        for line in lines:
            self._append(ROLLOUTS, line)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl, on disk when this returns to the operating system."""
        self._append(METRICS, line)

    def append_gradients(self, line: Mapping[str, Any]) -> None:
        """One line of gradients.jsonl."""
        self._append(GRADIENTS, line)

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self.path / name).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Complete lines of metrics.jsonl; a half-written last one is left out, and what follows a damaged one."""
        return self._steps(METRICS)

    def gradients(self) -> Iterator[dict[str, Any]]:
        """The same of gradients.jsonl."""
        return self._steps(GRADIENTS)

    def _steps(self, name: str) -> Iterator[dict[str, Any]]:
        file = self.path / name
        if not file.exists():
            return
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                return
            if not isinstance(found, dict) or not isinstance(found.get("step"), int):
                return
            yield found

    def cut_steps(self, step: int) -> None:
        """Keep the lines of all three up to and including `step`: later ones are written again by the resumed run."""
        for name in (METRICS, GRADIENTS, ROLLOUTS):
            if name == METRICS or (self.path / name).exists():
                kept = [line for line in self._steps(name) if line["step"] <= step]
                replace_file(self.path / name, "".join(json.dumps(line) + "\n" for line in kept))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """A whole json file."""
        replace_file(self.path / name, json.dumps(value) + "\n")

    def write_lines(self, name: str, lines: list[dict[str, Any]]) -> None:
        """A whole jsonl file."""
        replace_file(self.path / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _by_name(rewards: Any) -> dict[str, Any]:
    """The entries of a list of rewards that have a name."""
    return {str(one["name"]): one for one in rewards or () if isinstance(one, Mapping) and "name" in one}


def is_other_reward(before: Any, now: Mapping[str, Any]) -> bool:
    """Whether the content of a reward is not that of its earlier identity, which a file may have in any form."""
    return isinstance(before, Mapping) and any(name in before and before[name] != now.get(name) for name in REWARD_HASHES)


def changed_since(before: RunRecord, now: RunRecord) -> list[str]:
    """What an earlier record says otherwise of the model, the data, the products and the versions, in words; what it does not say is not compared."""
    parts = [(words, before.model, now.model, name) for name, words in MODEL_PARTS.items()]
    parts += [("data", before.data, now.data, "sha256"), ("evaluation data", before.eval_data, now.eval_data, "sha256")]
    parts += [("reward", before.reward, now.reward, name) for name in REWARD_HASHES]
    found = []
    for words, then, here, name in parts:
        one, other = _object(then).get(name), _object(here).get(name)
        if one is not None and one != other:
            found.append(f"the {words} are other ones than the earlier run's (sha256 {str(one)[:12]} then, {str(other)[:12]} now)")
    one, other = (_object(record.engine).get(PRODUCTS) for record in (before, now))
    if one is not None and other is not None and one != other:
        found.append(f"float32 products by other libraries than the earlier run's ({one} then, {other} now)")
    versions = _object(now.versions)
    moved = [f"{name} {old} then, {versions.get(name)} now" for name, old in _object(before.versions).items() if versions.get(name) != old]
    return found + ([f"other versions than the earlier run's: {', '.join(moved)}"] if moved else [])


def _object(part: Any) -> Mapping[str, Any]:
    return part if isinstance(part, Mapping) else {}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def read_record(file: Path) -> RunRecord:
    """A run.json, or the run.json of a folder."""
    file = file / "run.json" if file.is_dir() else file
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{file} holds no object of names and values, so it is no run.json")
    return RunRecord.of(record)


def check_free(out: Path, data: str = "") -> None:
    """Refuse, before the work, a name that is taken, cannot be written, or lies in the folder of the data, where it would be read as rows."""
    try:
        if data and os.path.isdir(data) and out.resolve().is_relative_to(Path(data).resolve()):
            raise CheckpointError(f"--out {out} is inside the folder that --data reads; give another --out")
        if out.exists() or out.is_symlink():
            raise CheckpointError(f"{out} already exists; give another --out")
        if not out.parent.is_dir():
            raise CheckpointError(f"cannot write {out}: there is no folder {out.parent}")
    except (OSError, ValueError) as error:  # a name that is too long, or holds what no name may
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"cannot write {out}: {error}") from error
    if not os.access(out.parent, os.W_OK):
        raise CheckpointError(f"cannot write {out}: {out.parent} may not be written to")
