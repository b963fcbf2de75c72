"""The worked example of docs/guides/add-a-command.md: its files in place, its row in the table, its tests and commands run."""

import importlib.util
import shlex
import sys
from pathlib import Path

import pytest

from finegrain import commands
from finegrain.cli import main
from tests import test_cli, test_settings
from tests.pages import ROOT, Block, blocks
from tests.pages import commands as command_lines
from tests.recipes.command import Command
from tests.tiny import save_tiny, write_pairs

GUIDE = ROOT / "docs/guides/add-a-command.md"
NAME = "lengths"


def run_block(block: Block) -> dict[str, object]:
    """Names that a block of Python defines, with the line numbers of the page in tracebacks."""
    namespace: dict[str, object] = {"__name__": "guide"}
    exec(compile("\n" * (block.line - 1) + block.text, str(GUIDE), "exec"), namespace)
    return namespace


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line with the command of the guide; its files are found under the names they would have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    found = blocks(GUIDE.read_text())
    for block in found:
        if block.file is not None and block.file.startswith("src/"):
            file = tmp_path / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
            module = ".".join(Path(block.file).relative_to("src").with_suffix("").parts)
            spec = importlib.util.spec_from_file_location(module, file)
            assert spec is not None
            assert spec.loader is not None
            made = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, module, made)
            spec.loader.exec_module(made)
    names = run_block(next(block for block in found if "row = Command(" in block.text))
    row, group = names["row"], names["group"]
    assert isinstance(row, commands.Command)
    monkeypatch.setitem(commands.COMMANDS, NAME, row)  # type: ignore[arg-type]
    monkeypatch.setitem(commands.SUMMARIES, NAME, row.summary)  # type: ignore[arg-type]
    monkeypatch.setitem(commands.GROUPS, group, (*commands.GROUPS[str(group)], NAME))  # type: ignore[arg-type]
    return Command(save_tiny(tmp_path / "my-model"), write_pairs(tmp_path / "pairs.jsonl", 24), tmp_path, capsys)


def test_its_tests_pass(command: Command) -> None:
    block = next(block for block in blocks(GUIDE.read_text()) if block.file is not None and block.file.startswith("tests/"))
    written = [function for name, function in run_block(block).items() if name.startswith("test_") and callable(function)]
    assert len(written) == 3
    for function in written:
        function(command)


def test_its_commands_run(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for block in blocks(GUIDE.read_text()) if block.language == "bash" for line in command_lines(block)]
    assert len(lines) == 2
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
        assert "quantile" in capsys.readouterr().out


@pytest.mark.usefixtures("command")
def test_it_keeps_the_laws(capsys: pytest.CaptureFixture[str]) -> None:
    """What is checked of every command and of every settings class."""
    test_cli.test_help_version_and_the_table(capsys)
    test_settings.test_shared_settings_are_written_once(NAME)
    kind = commands.resolve(commands.COMMANDS[NAME].settings)
    test_settings.test_a_value_of_another_type_is_refused(kind)
