"""The form of the house: no circle of imports, no import within a function, no name twice, no slip of a file. Each law is seen to fail."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache

import pytest

from finegrain import catalog
from finegrain.commands import COMMANDS, resolve
from finegrain.configure import list_choices
from tests.test_layers import sources
from tests.trees import parse

LATE = frozenset({"datasets", "fcntl", "ftfy", "httpx2", "msvcrt", "openai", "peft", "py3langid", "resource", "sklearn", "torch.nn.attention.varlen"})
"""Packages that a function may import: other systems', and those that few runs need and every start would pay for (docs/decisions/0018)."""
SLIP = 40
"""Lines below which a file with one importer belongs into that one."""


def imported_modules(module: str, tree: ast.AST, modules: Mapping[str, str]) -> set[str]:
    """Modules of ours that a file imports, wherever it does; those for type checkers alone are left out."""
    found = set()
    for node in _without_type_checking(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "finegrain":
            base = str(node.module).removeprefix("finegrain").removeprefix(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".removeprefix(".")
                found.add(name if name in modules else base)
    return (found & modules.keys()) - {module, ""}


def _without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from _without_type_checking(node)


def graph(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """Which modules each module imports."""
    return _graph(tuple(modules.items()))


@cache
def _graph(modules: tuple[tuple[str, str], ...]) -> dict[str, set[str]]:
    known = dict(modules)
    return {module: imported_modules(module, parse(text), known) for module, text in modules}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach one another, by repeatedly taking out what imports, or is imported by, nothing that is left."""
    left = {module: set(targets) for module, targets in edges.items()}
    while True:
        targets = set().union(*left.values()) if left else set()
        ends = {module for module in left if not left[module] & left.keys() or module not in targets}
        if not ends:
            return [sorted(left)] if left else []
        left = {module: own - ends for module, own in left.items() if module not in ends}


def late_imports(modules: Mapping[str, str]) -> list[str]:
    """Imports within functions, but of the packages that may be imported late."""
    found = []
    for module, text in modules.items():
        for function in ast.walk(parse(text)):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for node in ast.walk(function):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                found += [f"{module}.{function.name} imports {name}" for name in names if not {name, name.partition(".")[0]} & LATE]
    return found


def repeated_classes(modules: Mapping[str, str], exempt: frozenset[str]) -> list[str]:
    """Class names that two modules define, but those that a user writes: methods of the catalog and choices of a setting."""
    homes = defaultdict(list)
    for module, text in modules.items():
        for node in ast.walk(parse(text)):
            if isinstance(node, ast.ClassDef) and f"{module}:{node.name}" not in exempt:
                homes[node.name].append(module)
    return [f"{name} is defined in {' and '.join(where)}" for name, where in homes.items() if len(where) > 1]


def slips(modules: Mapping[str, str], exempt: frozenset[str]) -> list[str]:
    """Files of a few lines with one importer, but rows of the catalog and settings of a command."""
    importers = defaultdict(set)
    for module, targets in graph(modules).items():
        for target in targets:
            importers[target].add(module)
    return [
        f"{module} has {len(text.splitlines())} lines and one importer, {next(iter(importers[module]))}"
        for module, text in modules.items()
        if len(text.splitlines()) < SLIP and len(importers[module]) == 1 and module not in exempt
    ]


def target_of(option: type) -> str:
    return f"{option.__module__.removeprefix('finegrain.')}:{option.__qualname__}"


def chosen_by_name() -> frozenset[str]:
    """`module:Class` of all methods and of every class that a selector may name below them or below a command."""
    waiting = [resolve(command.settings) for command in COMMANDS.values()] + [catalog.load(one.family, one.name) for one in catalog.METHODS]
    found = {target_of(one) for one in waiting}
    while waiting:
        settings = waiting.pop()
        for field in fields(settings) if is_dataclass(settings) else ():
            for option in list_choices(settings, field.name).values():
                if target_of(option) not in found:
                    found.add(target_of(option))
                    waiting.append(option)
    return frozenset(found)


def rows() -> frozenset[str]:
    """Modules of the catalog's rows and of the commands' settings."""
    return frozenset({one.target.partition(":")[0] for one in catalog.METHODS} | {one.settings.partition(":")[0] for one in COMMANDS.values()})


def test_no_circle_of_imports() -> None:
    assert circles(graph(sources())) == []


def test_no_import_within_a_function() -> None:
    assert late_imports(sources()) == []


def test_every_class_has_a_name_of_its_own() -> None:
    assert repeated_classes(sources(), chosen_by_name()) == []


def test_no_file_is_a_slip_of_another() -> None:
    assert slips(sources(), rows()) == []


PLANTED = {
    "circle": (
        {"a": "from finegrain.b import x", "b": "from finegrain.c import y", "c": "def late():\n    from finegrain.a import z"},
        "['a', 'b', 'c']",
    ),
    "late": ({"a": "def late():\n    from finegrain.b import x"}, "a.late imports finegrain.b"),
    "late package": ({"a": "class A:\n    def late(self):\n        import transformers"}, "a.late imports transformers"),
    "class": ({"a": "class Row: ...", "b": "class Row: ..."}, "Row is defined in a and b"),
    "slip": ({"a": "from finegrain import b", "b": "x = 1"}, "b has 1 lines and one importer, a"),
}


@pytest.mark.parametrize("law", PLANTED)
def test_a_planted_violation_is_found(law: str) -> None:
    modules, message = PLANTED[law]
    found = [*circles(graph(modules)), *late_imports(modules), *repeated_classes(modules, frozenset()), *slips(modules, frozenset())]
    assert message in [str(one) for one in found]


def test_what_is_allowed_passes() -> None:
    long = "\n" * SLIP
    modules = {"a": f"from finegrain.b import x{long}", "b": f"def late():\n    import peft{long}", "c": f"from finegrain.b import x{long}"}
    assert not [*circles(graph(modules)), *late_imports(modules), *repeated_classes(modules, frozenset()), *slips(modules, frozenset())]
