"""Every script of benchmarks/ and examples/ parses, and imports only names that finegrain and the scripts beside it have. Nothing is run."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").glob("*.py")])


def imported(script: Path) -> Iterator[tuple[str, str | None]]:
    """Module and name of every import of the script, those inside functions too; None where the module itself is imported."""
    for node in ast.walk(ast.parse(script.read_text(), str(script))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{script.name}: a script has no package to be relative to"
            yield from ((node.module or "", alias.name) for alias in node.names)


def top_names(script: Path) -> set[str]:
    """Names that a script defines or imports at its top."""
    found: set[str] = set()
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def missing(script: Path) -> list[str]:
    """Imports that would fail; packages of others, which may not be installed here, are taken on trust."""
    lacks = []
    for module, name in imported(script):
        beside = script.with_name(f"{module.removeprefix('benchmarks.')}.py")
        if beside.exists():
            if name is not None and name not in top_names(beside):
                lacks.append(f"{module}.{name}")
        elif module.partition(".")[0] == "finegrain" and not there(module, name):
            lacks.append(module if name is None else f"{module}.{name}")
    return lacks


def there(module: str, name: str | None) -> bool:
    """Whether the package has the module, and in it the name, be it a module of its own."""
    try:
        found = importlib.import_module(module)
        return name is None or hasattr(found, name) or importlib.import_module(f"{module}.{name}") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.parent.name}/{script.name}")
def test_what_a_script_imports_is_there(script: Path) -> None:
    assert missing(script) == []


def test_a_name_that_is_gone_is_seen(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("from pathlib import Path\nHERE: Path = Path()\nA, B = 1, 2\n")
    script = tmp_path / "script.py"
    good = "import trl, finegrain\nfrom finegrain.ops import stats\nfrom finegrain.ops.stats import Interval\nfrom beside import A, B, HERE, Path\n"
    script.write_text(good)
    assert missing(script) == []
    script.write_text(good + "from finegrain.ops.stats import Nothing\nfrom beside import C\n\ndef main():\n    from finegrain.ops import nothing\n")
    assert missing(script) == ["finegrain.ops.stats.Nothing", "beside.C", "finegrain.ops.nothing"]
    script.write_text("from benchmarks.beside import A, D")
    assert missing(script) == ["benchmarks.beside.D"]


def test_collected() -> None:
    assert len(SCRIPTS) > 30
