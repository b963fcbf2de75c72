"""Imports point one way: a room imports the rooms above it, never below, never beside. Imports inside functions count."""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.trees import parse

SOURCE = Path(__file__).parents[1] / "src" / "finegrain"

FAMILIES = ("credit", "objectives", "rewards", "curate", "online", "rounds", "weights", "search", "evaluate", "diagnose")
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("checked", "declarations", "files", "terminal"),
    ("types",),
    ("ops",),
    FAMILIES,
    ("methods",),
    ("catalog",),
    ("configure",),
    ("run_record",),
    ("runs", "data"),
    ("models",),
    ("generate", "train"),
    ("scoring",),
    ("commands",),
    ("report",),
    ("recipes",),
    ("settings_file",),
    ("parsing",),
    ("cli",),
    ("__main__",),
)
"""Rooms of one line are siblings. DESIGN's order, but for catalog and configure (docs/decisions/0009)."""

RECIPES: tuple[tuple[str, ...], ...] = (
    ("score_files", "inspection", "evaluation"),
    ("training", "marking"),
    ("curation", "merging", "annotation", "iteration", "online"),
    ("demo",),
    ("bench",),
)
"""The same order among the rooms of the recipes; a command's own file is imported from above for its settings alone."""

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
RECIPE_LEVEL = {room: level for level, rooms in enumerate(RECIPES) for room in rooms}
PURE = ("errors", "checked", "declarations", "files", "terminal", "types", "ops", *FAMILIES, "methods", "catalog", "configure")
PURE_PACKAGES = frozenset({"torch", "numpy", "scipy", "sklearn", "jaxtyping", "rapidfuzz"})
ROOMS_OF = {
    "tyro": ("parsing",),
    "accelerate": ("train", "scoring", "recipes"),
    "datasets": ("data",),
    "peft": ("models",),
    "openai": ("generate",),
    "httpx2": ("generate",),
}
"""Packages that only these rooms may know."""
DYNAMIC = frozenset({"", "catalog", "commands", "scoring.opening"})
"""Modules that may import by a computed name: the package's lazy names and the tables of methods, of commands and of rewards."""
FEWEST_FILES = 115


def sources() -> dict[str, str]:
    """Text of every module by its dotted name below the package; the package itself is ""."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def imported(text: str) -> Iterator[tuple[str, str]]:
    """(top package, what is imported) of every import statement, wherever it stands."""
    for node in ast.walk(parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom):
            yield from ((str(node.module).partition(".")[0], f"{node.module}.{alias.name}") for alias in node.names)
            if node.level:
                yield "finegrain", f"relative import of {node.module}"


def computed_imports(text: str) -> bool:
    """Whether a module imports by a computed name."""
    calls = [node.func for node in ast.walk(parse(text)) if isinstance(node, ast.Call)]
    names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
    return bool({"import_module", "__import__"} & set(names))


def violations(modules: Mapping[str, str]) -> list[str]:
    """What the rules forbid, as sentences."""
    return [sentence for module, text in modules.items() if module for sentence in _of_module(module, text)] + [
        f"{module} imports by a computed name" for module, text in modules.items() if module not in DYNAMIC and computed_imports(text)
    ]


def _of_module(module: str, text: str) -> Iterator[str]:
    room = module.partition(".")[0]
    if room not in LEVEL:
        yield f"{module} stands in no known room"
        return
    for top, name in imported(text):
        if top == "finegrain":
            yield from _inside(module, room, name)
            yield from _among_recipes(module, name)
        elif room in PURE and top not in PURE_PACKAGES | sys.stdlib_module_names:
            yield f"{module} imports {name}; only {', '.join(sorted(PURE_PACKAGES))} and the standard library may be imported there"
        elif room not in ROOMS_OF.get(top, (room,)):
            yield f"{module} imports {top}, which only {', '.join(ROOMS_OF[top])} may know"


def _inside(module: str, room: str, name: str) -> Iterator[str]:
    other = name.removeprefix("finegrain.").partition(".")[0]
    if other == "__version__" or other == room:
        return
    if other not in LEVEL:
        yield f"{module} imports {name}, which is no room of the house"
    elif LEVEL[other] == LEVEL[room]:
        yield f"{module} imports its sibling {name}"
    elif LEVEL[other] > LEVEL[room]:
        yield f"{module} imports {name} from below"


def _among_recipes(module: str, name: str) -> Iterator[str]:
    """A room of the recipes imports none below it and none beside it."""
    here, there = (parts[1] if parts[0] == "recipes" else "" for parts in (f"{module}.".split("."), f"{name.removeprefix('finegrain.')}.".split(".")))
    if here in RECIPE_LEVEL and there in RECIPE_LEVEL and here != there and RECIPE_LEVEL[there] >= RECIPE_LEVEL[here]:
        yield f"{module} imports {name} from {'beside' if RECIPE_LEVEL[there] == RECIPE_LEVEL[here] else 'below'} it among the recipes"


def test_the_house_keeps_its_layers() -> None:
    modules = sources()
    print(f"{len(modules)} files in {len({name.partition('.')[0] for name in modules})} rooms")
    assert len(modules) >= FEWEST_FILES
    assert violations(modules) == []


PLANTED = {
    "from finegrain.train.loop import Trainer": ("objectives.planted", "from below"),
    "from finegrain.credit.asr import ASR": ("objectives.planted", "sibling"),
    "def late():\n    import finegrain.cli": ("recipes.planted", "from below"),
    "def late():\n    from transformers import AutoModel": ("credit.planted", "may be imported there"),
    "from finegrain import recipes": ("ops.planted", "from below"),
    "from finegrain import prefer": ("train.planted", "no room"),
    "from finegrain.data import read": ("runs", "sibling"),
    "from ..types import Pair": ("objectives.planted", "no room"),
    "import tyro": ("recipes.planted", "only parsing may know"),
    "import accelerate": ("models.planted", "only train, scoring, recipes may know"),
    "import importlib\nimportlib.import_module('x')": ("models.planted", "computed"),
    "import math": ("attic.planted", "no known room"),
    "from finegrain.recipes.training.job import Job": ("recipes.inspection.planted", "from below it among the recipes"),
    "from finegrain.recipes.score_files import score_lines": ("recipes.evaluation.planted", "from beside it among the recipes"),
}


@pytest.mark.parametrize("text", PLANTED)
def test_a_planted_violation_is_caught(text: str) -> None:
    module, message = PLANTED[text]
    found = violations({module: text})
    assert len(found) == 1, found
    assert message in found[0]


def test_what_is_allowed_passes() -> None:
    fine = "import math\nimport numpy as np\nfrom torch import Tensor\nfrom finegrain import errors\nfrom finegrain.ops.masked import masked_sum\n"
    assert violations({"objectives.planted": fine + "from finegrain.objectives.margins import margin"}) == []
    assert violations({"recipes.planted": "import transformers\nfrom finegrain.objectives.dpo import DPO"}) == []
