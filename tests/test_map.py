"""The map of tests is current, every source file has tests, and a test file says what it tests."""

import ast

import pytest

from tests.make_map import MAP, SOURCE, TESTS, exercised, text


def test_the_map_is_current() -> None:
    assert MAP.read_text() == text(), "run `python -m tests.make_map`"


def test_every_file_is_exercised() -> None:
    assert [name for name, (_, tests) in exercised().items() if not tests] == []


def unnamed(room: str, name: str, script: str) -> list[str]:
    """The test file, unless it has the name of a source file of its room or its docstring ends with `Test of room/file.py.`."""
    places = (room, "commands") if room == "recipes" else (room,)
    if any(path.stem == name.removeprefix("test_").removesuffix(".py") for place in places for path in (SOURCE / place).rglob("*.py")):
        return []
    said = (ast.get_docstring(ast.parse(script)) or "").rpartition("Test of ")[2].strip().removesuffix(".").split(", ")
    return [] if all(file and (SOURCE / file).exists() for file in said) else [f"{room}/{name}"]


def test_a_test_file_has_the_name_of_its_source_or_says_it() -> None:
    files = [(room.name, path) for room in sorted(SOURCE.iterdir()) for path in sorted((TESTS / room.name).glob("test_*.py"))]
    assert [found for room, path in files for found in unnamed(room, path.name, path.read_text())] == []


@pytest.mark.parametrize("script", ["", '"""What it does."""', '"""What it does. Test of models/gone.py."""', '"""Test of ."""'])
def test_a_file_that_does_not_say_it_is_found(script: str) -> None:
    assert unnamed("models", "test_whatever.py", script) == ["models/test_whatever.py"]
    assert unnamed("models", "test_scorer.py", script) == []
    assert unnamed("models", "test_whatever.py", '"""What it does. Test of models/scorer.py, models/probe.py."""') == []
