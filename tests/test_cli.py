"""The command line itself: help, tables and exit codes."""

from dataclasses import fields
from pathlib import Path

import pytest

from finegrain import __version__, catalog, cli
from finegrain.cli import main
from finegrain.commands import COMMANDS, GROUPS, SUMMARIES, resolve
from finegrain.configure import list_choices


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help is kept in the cache folder."""
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path))


def test_help_version_and_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert all(f"finegrain {name}" in out for name in SUMMARIES)
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(SUMMARIES), "every command stands in one group"
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"finegrain {__version__}"
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    assert all(f"{method.family}:{method.name}" in out for method in catalog.METHODS)


@pytest.mark.parametrize("method", catalog.METHODS, ids=lambda method: method.name)
def test_one_method(method: catalog.Method, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", method.name]) == 0
    out = capsys.readouterr().out
    assert f"{method.family}:{method.name}" in out
    assert "Source:" in out


@pytest.mark.parametrize("command", ["prefer", "sft"])
def test_help_of_a_command_lists_its_settings_and_those_of_the_methods_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "objective:ipo", "credit:asr", "--help"]) == 0
    out = capsys.readouterr().out
    flags = ("--model", "--data", "--out", "--max-steps", "--lora.rank", "--objective.beta", "--credit.min-kept", "--resume")
    assert all(flag in out for flag in flags)


@pytest.mark.parametrize("name", [name for name in SUMMARIES if " " in name])
def test_a_sub_command_is_in_the_help_of_its_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    outer, _, inner = name.partition(" ")
    assert main([outer, "--help"]) == 0
    assert f"finegrain {name}" in capsys.readouterr().out
    assert main([outer, inner, "--help"]) == 0
    assert f"usage: finegrain {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prefr"], ["unknown command 'prefr'", "prefer"]),
        (["posterior", "run"], ["unknown command 'posterior'", "reward posterior"]),
        (["bound"], ["unknown command 'bound'", "reward bound"]),
        (["baseline"], ["unknown command 'baseline'", "score baseline"]),
        (["compare"], ["unknown command 'compare'", "eval compare"]),
        (["reward", "posteror", "run"], ["unknown command 'reward posteror'", "reward posterior"]),
        (["score", "base-line"], ["unknown command 'score base-line'", "score baseline"]),
        (["methods", "dop"], ["unknown method 'dop'", "dpo"]),
        (["prefer"], ["--model"]),
        (["prefer", "--model", "m"], ["--data"]),
        (["again"], ["run.json"]),
        (["prefer", "--config"], ["--config needs a file"]),
        (["prefer", "credit:asr", "credit.scorer.signal:auto"], ["credit.scorer.signal:auto", "scorer is a plain value and has no signal"]),
    ],
)
def test_mistakes_end_with_2(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(word in captured.err for word in words)


def test_again_needs_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["again", str(tmp_path / "run.json")]) == 7
    (tmp_path / "run.json").write_text("{}")
    assert main(["again", str(tmp_path / "run.json"), "--out", str(tmp_path / "two")]) == 2
    assert "no run.json" in capsys.readouterr().err


def below(settings: type, found: set[type]) -> set[type]:
    """Every class that a selector may choose below these settings, added to those found."""
    for field in fields(settings):
        options = list_choices(settings, field.name).values()
        for option in options:
            if option not in found:
                found |= {option}
                below(option, found)
    return found


def test_every_choice_has_defaults() -> None:
    """A selector names a class and nothing else, so every class it may name is made of its defaults."""
    found: set[type] = set()
    for settings in [*(resolve(command.settings) for command in COMMANDS.values()), *(catalog.load(m.family, m.name) for m in catalog.METHODS)]:
        below(settings, found)
    assert len(found) > 100
    for option in found:
        option()


def test_help_is_kept_until_a_source_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "method.py").write_text("")
    monkeypatch.setattr(cli, "__file__", str(source / "cli.py"))
    assert main(["prefer", "objective:ipo", "--help"]) == 0
    first = capsys.readouterr().out
    asked: list[str] = []
    monkeypatch.setattr(cli, "resolve", lambda target: lambda name, arguments: asked.append(name))
    assert main(["prefer", "objective:ipo", "--help"]) == 0
    assert capsys.readouterr().out == first
    assert asked == []
    main(["prefer", "objective:dpo", "--help"])
    main(["prefer", "objective:own.py:Loss", "--help"])
    main(["prefer", "objective:ipo", "--help", "--beta", "1"])
    assert len(asked) == 3, "other methods, foreign ones and flags are read"
    (source / "method.py").write_text("changed")
    main(["prefer", "objective:ipo", "--help"])
    assert len(asked) == 4
    assert len(list((tmp_path / "help").iterdir())) == 1
