"""The map of tests is current, and every source file has tests."""

from tests.make_map import MAP, exercised, text


def test_the_map_is_current() -> None:
    assert MAP.read_text() == text(), "run `python -m tests.make_map`"


def test_every_file_is_exercised() -> None:
    assert [name for name, (_, tests) in exercised().items() if not tests] == []
