"""The worked example of docs/guides/add-a-format.md: its function in place, its row in the table, its tests and command run."""

import importlib.util
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from finegrain.cli import main
from finegrain.data import convert, formats
from tests.pages import ROOT, blocks, commands
from tests.test_guide_of_commands import run_block
from tests.tiny import write_rows

FOUND = blocks((ROOT / "docs/guides/add-a-format.md").read_text())


@pytest.fixture
def picked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names of the guide's test, with the guide's format in the table."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "picked.py"
    file.write_text(next(block for block in FOUND if block.file == "src/finegrain/data/convert/picked.py").text)
    spec = importlib.util.spec_from_file_location("finegrain.data.convert.picked", file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "finegrain.data.convert.picked", made)
    monkeypatch.setattr(convert, "picked", made, raising=False)
    spec.loader.exec_module(made)
    row = run_block(next(block for block in FOUND if "row = Format(" in block.text))["row"]
    monkeypatch.setattr(formats, "FORMATS", (row, *formats.FORMATS))
    return run_block(next(block for block in FOUND if block.file == "tests/data/test_picked.py"))


def test_its_tests_pass(picked: dict[str, Any]) -> None:
    written = [function for name, function in picked.items() if name.startswith("test_")]
    assert len(written) == 2
    for function in written:
        function()


def test_its_command_runs(picked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("picked.jsonl"), [picked["ROW"]] * 3)
    (line,) = [line for block in FOUND if block.language == "bash" for line in commands(block)]
    assert main(shlex.split(line)[1:]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["format"] == "picked candidates"
