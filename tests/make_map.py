"""The map from source files to test files, made of imports: `python -m tests.make_map` writes tests/MAP.md, tests/test_map.py checks it.

A source file is tested by the test files that import it; where none does, by those that import what imports it, and so on, the nearest ones.
"""

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from tests.trees import parse

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "finegrain"
MAP = TESTS / "MAP.md"
FEW = 6
"""Test files that are named for a source file that none imports."""

HEAD = """# Which tests exercise which files

Made by `python -m tests.make_map` from the imports. A file in italics is imported by no test itself; named are the tests nearest to it.
"""


def imported(path: Path, known: Iterable[str]) -> set[str]:
    """Modules below the package that a file imports, or names in strings as `module:Class` or `finegrain.module`."""
    found: set[str] = set()
    for node in ast.walk(parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "finegrain":
            base = str(node.module).removeprefix("finegrain").removeprefix(".")
            found |= {base or "__init__"} | {f"{base}.{alias.name}".removeprefix(".") for alias in node.names}
        elif isinstance(node, ast.Import) and any(alias.name == "finegrain" for alias in node.names):
            found.add("__init__")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and {".", ":"} & set(node.value):
            found.add(node.value.removeprefix("finegrain.").partition(":")[0])
    return found & set(known)


def modules() -> dict[str, Path]:
    """Source files by dotted name; a room's `__init__` of a docstring alone is left out, and the script behind `python -m finegrain`."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if parts[-1] != "__main__" and (parts[-1] != "__init__" or len(parse(path.read_text()).body) > 1):
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def nearest(module: str, importers: Mapping[str, set[str]], tested: Mapping[str, list[str]]) -> list[str]:
    """Tests of the modules that import this one, or of those that import them, the first that are found."""
    seen, front = {module}, {module}
    while front:
        front = {other for one in front for other in importers[one]} - seen
        seen |= front
        if tests := sorted({test for one in front for test in tested[one]}):
            return tests[:FEW]
    return []


@cache
def exercised() -> dict[str, tuple[bool, list[str]]]:
    """By module: whether a test imports it itself, and the test files."""
    known = modules()
    importers: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for other in imported(path, known) - {name}:
            importers[other].add(name)
    tested: dict[str, list[str]] = {name: [] for name in known}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in imported(path, known):
            tested[name].append(path.relative_to(TESTS).as_posix())
    return {name: (bool(tested[name]), tested[name] or nearest(name, importers, tested)) for name in known}


def text() -> str:
    """The page, a table per room."""
    rooms: dict[str, list[str]] = {"files of the package": []}
    paths = modules()
    for name, (itself, tests) in exercised().items():
        file = paths[name].relative_to(SOURCE)
        room = file.parts[0] if len(file.parts) > 1 else "files of the package"
        line = f"| {file.as_posix() if itself else f'*{file.as_posix()}*'} | {', '.join(test.removesuffix('.py') for test in tests)} |"
        rooms.setdefault(room, []).append(line)
    tables = ["\n".join([f"## {room}", "", "| file | tests |", "| --- | --- |", *lines]) for room, lines in rooms.items()]
    return "\n\n".join([HEAD.rstrip(), *tables]) + "\n"


if __name__ == "__main__":
    MAP.write_text(text())
