"""The worked example of docs/guides/add-a-reward.md: its file in place, its row in the table, its tests and commands run."""

import importlib.util
import inspect
import shlex
import sys
from pathlib import Path

import pytest

from finegrain.cli import main
from finegrain.scoring import sources
from tests.pages import ROOT, blocks, commands
from tests.recipes.command import Command
from tests.test_guide_of_commands import run_block
from tests.tiny import save_tiny, write_pairs

GUIDE = ROOT / "docs/guides/add-a-reward.md"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line with the reward of the guide, whose file is found under the name it would have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    found = blocks(GUIDE.read_text())
    file = tmp_path / "match.py"
    file.write_text(next(block for block in found if block.file == "src/finegrain/scoring/match.py").text)
    spec = importlib.util.spec_from_file_location("finegrain.scoring.match", file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "finegrain.scoring.match", made)
    spec.loader.exec_module(made)
    row = run_block(next(block for block in found if "row = RewardSource(" in block.text))["row"]
    monkeypatch.setattr(sources, "SOURCES", (*sources.SOURCES, row))
    return Command(save_tiny(tmp_path / "my-model"), write_pairs(tmp_path / "pairs.jsonl", 24), tmp_path, capsys)


def test_its_tests_pass(command: Command) -> None:
    block = next(block for block in blocks(GUIDE.read_text()) if block.file is not None and block.file.startswith("tests/"))
    written = [function for name, function in run_block(block).items() if name.startswith("test_") and callable(function)]
    assert len(written) == 3
    for function in written:
        function(*([command] if inspect.signature(function).parameters else []))


@pytest.mark.usefixtures("command")
def test_its_commands_run(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for block in blocks(GUIDE.read_text()) if block.language == "bash" for line in commands(block)]
    assert len(lines) == 2
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
