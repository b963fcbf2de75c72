"""Nothing that a model, a file or its name says reaches the terminal raw."""

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.cli import main
from finegrain.terminal import HIDDEN, make_visible, write_line
from tests.tiny import write_rows
from tests.trees import parse

ROOT = Path(__file__).parents[1] / "src" / "finegrain"
HOSTILE = "\x1b[31m\x1b]0;title\x07\u202eabc\u2066\x9b2J\r\x08\x7f"


def raw(text: str) -> list[str]:
    """What a terminal would act on."""
    return HIDDEN.findall(text)


@settings(max_examples=100, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters() | st.sampled_from(HOSTILE + "\udcff")))
def test_visible_text_hides_nothing(text: str) -> None:
    shown = make_visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff]", shown)
    assert make_visible(shown) == shown


def test_one_place_writes_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    write_line(HOSTILE)
    assert not raw(capsys.readouterr().err)
    calls = {
        str(file.relative_to(ROOT))
        for file in ROOT.rglob("*.py")
        for node in ast.walk(parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert calls == {"cli.py", "terminal.py"}, "stdout is the command line's alone, and stderr is written by write_line"


@pytest.mark.parametrize(
    "arguments",
    [
        [HOSTILE],
        ["methods", HOSTILE],
        ["again", HOSTILE],
        ["prefer", f"--{HOSTILE}", "1"],
        ["prefer", "--dtype", HOSTILE],
        ["prefer", "--batch-size", HOSTILE],
        ["prefer", f"objective:{HOSTILE}"],
        ["prefer", "--config", HOSTILE],
        ["check-data", "--data", f"{HOSTILE}.jsonl"],
        ["prefer", "--model", HOSTILE, "--data", "d", "--out", "o"],
        ["inspect", HOSTILE],
    ],
)
def test_arguments(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) not in (0, 1)
    captured = capsys.readouterr()
    assert captured.err
    assert "Traceback" not in captured.err
    assert not raw(captured.err + captured.out)


def test_names_in_data_and_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns, cells and file names of check-data, and a settings file's names and values."""
    file = tmp_path / "\x1b[2Jrows.jsonl"
    rows = [{"prompt": HOSTILE, "chosen": f"good {HOSTILE}", "rejected": "bad", HOSTILE: HOSTILE}, {"prompt": "p", "chosen": "a", "rejected": "a"}]
    write_rows(file, rows)
    assert main(["check-data", "--data", str(file)]) == 0
    captured = capsys.readouterr()
    assert not raw(captured.err + captured.out)
    settings_file = tmp_path / "settings.yaml"
    for data in ({HOSTILE: 1}, {"objective": HOSTILE}, {"common": {HOSTILE: HOSTILE}}, {"common": {"dtype": HOSTILE}}, {"data": [HOSTILE]}):
        settings_file.write_text(json.dumps(data))
        assert main(["prefer", "--config", str(settings_file), "--model", "m", "--out", "o"]) == 2
        assert not raw(capsys.readouterr().err)
