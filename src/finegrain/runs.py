"""The run directory: run.json (what was asked and what came of it), metrics.jsonl (a line per step), samples.jsonl."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.errors import CheckpointError


@dataclass(frozen=True)
class RunDirectory:
    """Files of one run; every file is complete or absent, metrics.jsonl up to its last full line."""

    path: Path

    def create(self, *, resume: bool) -> None:
        """Make the folder; an existing run is only touched with resume."""
        if not resume and (self.path / "run.json").exists():
            raise CheckpointError(f"{self.path} already holds a run; give another --out, or --resume to go on with it")
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

    def write_lines(self, name: str, lines: list[dict[str, Any]]) -> None:
        """A whole jsonl file."""
        _replace(self.path / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_record(file: Path) -> dict[str, Any]:
    """A run.json, or the run.json of a folder."""
    file = file / "run.json" if file.is_dir() else file
    try:
        record: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    return record


def _replace(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    with part.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)
