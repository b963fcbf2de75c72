"""The command line called in this process, and what it left behind."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from finegrain.cli import main
from tests.tiny import without_times

SHORT = ["--batch-size", "4", "--device", "cpu", "--samples", "0"]
"""Settings of every short run."""


def made_once(folder: Path, command: str, *arguments: str | Path) -> Path:
    """A run that all tests of a file start from; it has a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINEGRAIN_CACHE", str(folder / "cache"))
        short = [*SHORT, "--out", folder / "run"]
        assert main([command, *(str(argument) for argument in (*short, *arguments))]) == 0
    return folder / "run"


READY: dict[tuple[str, ...], Path] = {}
"""Runs that tests start from, by what was asked."""


class Outcome(NamedTuple):
    """One call."""

    code: int
    result: dict[str, Any]
    """The last line of stdout, where it is JSON."""
    error: str
    """stderr."""


class Command:
    """`finegrain ...` on a tiny model and tiny pairs."""

    def __init__(self, model: Path, data: Path, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.model, self.data, self.folder, self.captured = model, data, folder, captured

    def __call__(self, *arguments: str | Path) -> Outcome:
        """The arguments as they are."""
        self.captured.readouterr()
        code = main([str(argument) for argument in arguments])
        out, error = self.captured.readouterr()
        last = out.strip().splitlines()[-1:]
        return Outcome(code, json.loads(last[0]) if last and last[0].startswith("{") else {}, error)

    def prefer(self, run: str, *arguments: str | Path, command: str = "prefer") -> Outcome:
        """A short run into a folder of this name; what is given here stands before the arguments, which may override it."""
        return self(command, *self._usual(arguments), "--out", self.folder / run, *SHORT, *arguments)

    def _usual(self, arguments: tuple[str | Path, ...]) -> list[str | Path]:
        given = {str(argument) for argument in arguments}
        model = [] if "--model" in given or "--config" in given else ["--model", self.model]
        data = [] if "--data" in given or "--config" in given else ["--data", self.data]
        return [*model, *data]

    def ready(self, run: str, *arguments: str | Path, command: str = "prefer") -> Path:
        """A copy of such a run, for a test that starts from one; the same run is made once a session, with a cache of its own."""
        asked = [*self._usual(arguments), *arguments]
        key = (command, *map(str, asked))
        if key not in READY:
            READY[key] = made_once(self.model.parent / f"ready-{len(READY)}", command, *asked)
            self.captured.readouterr()
        return Path(shutil.copytree(READY[key], self.folder / run))

    def first(self, rows: int) -> None:
        """From here on the data are the first so many pairs."""
        lines = self.data.read_text().splitlines(keepends=True)[:rows]
        self.data = self.folder / f"first-{rows}.jsonl"
        self.data.write_text("".join(lines))

    def record(self, run: str) -> dict[str, Any]:
        """run.json."""
        found: dict[str, Any] = json.loads((self.folder / run / "run.json").read_text())
        return found

    def lines(self, run: str) -> list[dict[str, Any]]:
        """metrics.jsonl without what a repeated run may log differently."""
        return without_times(map(json.loads, (self.folder / run / "metrics.jsonl").read_text().splitlines()))
