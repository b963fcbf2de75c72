"""The run directory: run.json (what was asked and what came of it), metrics.jsonl (a line per step), samples.jsonl."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.errors import CheckpointError

FREE = frozenset(
    f"{group}{name}"
    for group, names in {
        "": ("out",),
        "common.": ("resume", "dry_run", "device"),
        "training.": ("save_every", "track", "samples", "examined"),
    }.items()
    for name in names
)
"""Settings that may change when a run is resumed: they do not change its numbers."""


@dataclass(frozen=True)
class RunDirectory:
    """Files of one run; every file is complete or absent, metrics.jsonl up to its last full line."""

    path: Path

    def check(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Refuse to touch another run: without resume any, with resume one of other settings."""
        if not (self.path / "run.json").exists():
            return
        if not resume:
            raise CheckpointError(f"{self.path} already holds a run; give another --out, or --resume to go on with it")
        before, now = flat(self.read_record().get("settings", {})), flat(json.loads(json.dumps(settings, default=str)))
        other = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name) and name not in FREE)
        if other:
            named = ", ".join(f"{name} was {before.get(name)} and is {now.get(name)}" for name in other[:5])
            raise CheckpointError(f"{self.path} holds a run with other settings ({named}); resume with the same ones, or give another --out")

    def check_data(self, report: Mapping[str, Any]) -> None:
        """Refuse to go on with a run whose data were other ones."""
        if not (self.path / "run.json").exists():
            return
        before = self.read_record().get("data", {}).get("sha256")
        if before is not None and before != report.get("sha256"):
            raise CheckpointError(f"the run in {self.path} was started on other data than {report.get('source')} holds now; give another --out")

    def create(self) -> None:
        """Make the folder."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot create {self.path}: {error}") from error

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Replace run.json."""
        _replace(self.path / "run.json", json.dumps(record, indent=2, default=str) + "\n")

    def read_record(self) -> dict[str, Any]:
        """run.json."""
        return read_record(self.path / "run.json")

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl, on disk when this returns to the operating system."""
        with (self.path / "metrics.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Complete lines of metrics.jsonl; a half-written last one is left out."""
        file = self.path / "metrics.jsonl"
        if not file.exists():
            return
        for line in file.read_text().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return

    def cut_metrics(self, step: int) -> None:
        """Keep the lines up to and including `step`: later ones are written again by the resumed run."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        _replace(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """A whole json file."""
        _replace(self.path / name, json.dumps(value) + "\n")

    def write_lines(self, name: str, lines: list[dict[str, Any]]) -> None:
        """A whole jsonl file."""
        _replace(self.path / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def read_record(file: Path) -> dict[str, Any]:
    """A run.json, or the run.json of a folder."""
    file = file / "run.json" if file.is_dir() else file
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{file} holds no object of names and values, so it is no run.json")
    return record


def _replace(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    with part.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)
