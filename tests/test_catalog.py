"""The table of methods, the folders, the pages and the tests agree."""

import ast
import dataclasses
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from finegrain import catalog
from finegrain.catalog import METHODS, Method
from finegrain.configure import from_json, to_json
from finegrain.errors import UsageError
from finegrain.train.read_contract import contract_of
from tests.trees import parse

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "objective": "objectives",
    "credit": "credit",
    "segmenter": "ops",
    "head": "rewards",
    "loss": "rewards",
    "curate": "curate",
    "merge": "weights",
    "algorithm": "online",
}
ENTRY = {
    "objective": ("__call__", ["pair"]),
    "credit": ("prepare", ["context"]),
    "head": ("tokens", ["outputs"]),
    "loss": ("__call__", ["head", "pair"]),
    "merge": ("__call__", ["models", "base", "dtype"]),
}
SHARED_FILE = {"segmenter": ("segmenters", "tests/ops/test_segments.py")}
"""Families whose methods are small choices side by side in one file, and where they are tested."""
HEADINGS = ["What it does", "Formula", "Settings", "Deviations", "Our numbers", "Example", "Sources"]
PYTHON_ONLY = frozenset(
    {
        "abc",
        "bayesian-rm",
        "contrastive-rewards",
        "gradient-entanglement",
        "lort",
        "ma-rlhf",
        "mistral-plus",
        "mm-calibration",
        "pama",
        "pf-ppo",
        "r3hf",
        "rewardbench",
        "salsa",
        "text-simplification",
    }
)
"""Methods that are functions for Python and for recipes: a page and tests, no name on the command line."""
FEWEST = {"objective": 26, "credit": 4, "segmenter": 2, "head": 4, "loss": 1}


def made(method: Method) -> Any:
    """The settings of a row: defaults, and a path where a name of the user's own is required."""
    settings = catalog.load(method.family, method.name)
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    return settings(**{f.name: "file.py:name" for f in dataclasses.fields(settings) if (f.default, f.default_factory) == missing})


def test_collected() -> None:
    for family, fewest in FEWEST.items():
        print(f"{len(catalog.names(family))} rows of {family}")
        assert len(catalog.names(family)) >= fewest
    assert {method.family for method in METHODS} == set(FOLDERS)


def test_names_and_targets_are_unique() -> None:
    assert len({(method.family, method.name) for method in METHODS}) == len(METHODS)
    assert len({method.target for method in METHODS}) == len(METHODS)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", method.name) for method in METHODS)


def is_protocol(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)


@pytest.mark.parametrize("family", ENTRY)
def test_folder_and_table_agree(family: str) -> None:
    """Every class that can be called as a method of its family has a row, and every row such a class."""
    folder, (function, expected) = FOLDERS[family], ENTRY[family]
    found = set()
    for path in sorted((ROOT / "src/finegrain" / folder).glob("*.py")):
        for node in parse(path.read_text()).body:
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)] if isinstance(node, ast.ClassDef) else []
            entries = [m for m in methods if m.name == function and [a.arg for a in m.args.args] == ["self", *expected]]
            if entries and not is_protocol(node):
                found.add(f"{folder}.{path.stem}:{node.name}")
    assert found == {method.target for method in METHODS if method.family == family}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_row(method: Method) -> None:
    module_name, _, class_name = method.target.partition(":")
    folder, _, file = module_name.partition(".")
    assert folder == FOLDERS[method.family]
    own = method.name.replace("-", "_")
    expected, test = SHARED_FILE.get(method.family, (own, f"tests/{folder}/test_{own}.py"))
    assert file == expected, "the file is named as the method"
    assert (ROOT / test).exists(), "a method has a test"
    documentation = importlib.import_module(f"finegrain.{module_name}").__doc__ or ""
    assert "Source:" in documentation
    assert "Deviations:" in documentation
    link = method.source.removeprefix("ours: ")
    assert link in documentation, "the row's link is in the docstring"
    assert link.startswith("https://") or (ROOT / link).exists(), "a method of ours links to its page"
    assert catalog.get_name(made(method)) == method.name
    assert catalog.load(method.family, method.name).__name__ == class_name


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_settings(method: Method) -> None:
    """Frozen, keyword-only, documented, and back from JSON."""
    settings = catalog.load(method.family, method.name)
    assert dataclasses.is_dataclass(settings)
    assert settings.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(settings))
    default = made(method)
    assert from_json(settings, json.loads(json.dumps(to_json(default)))) == default


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_page(method: Method) -> None:
    path = ROOT / "docs/methods" / f"{method.name}.md"
    assert path.exists(), f"docs/methods/{method.name}.md is missing"
    page = path.read_text()
    assert page.startswith(f"# {method.name}")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == HEADINGS
    sections = dict(re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert all(text.strip() for text in sections.values()), "no section is empty"
    assert "```python\n" in sections["Example"]
    if method.source.startswith("https://"):
        assert method.source in sections["Sources"]
    settings = catalog.load(method.family, method.name)
    for field in dataclasses.fields(settings):
        assert f"`{field.name}`" in sections["Settings"], f"setting {field.name} is not on the page"
    assert missing_defaults(sections["Settings"], to_json(made(method))) == []
    if method.family == "objective":
        rate = re.search(r"[Dd]efault learning rate (?:as objective )?(\S+?)[:;,.]? ", sections["Settings"] + " ")
        assert rate, "the default learning rate is not on the page"
        assert float(rate[1]) == contract_of(made(method)).learning_rate


def missing_defaults(section: str, settings: dict[str, Any]) -> list[str]:
    """Settings whose default is not in the second cell of their row: a number, the name of a choice, or none; of a group, those within it.

    What a choice has for settings of its own stands in their rows, or somewhere in that of the choice.
    """
    rows: dict[str, list[str]] = {}
    for line in re.findall(r"^\|(.*)\|$", section, re.MULTILINE):
        name, *cells = (part.strip() for part in line.split("|"))
        rows |= dict.fromkeys(re.findall(r"`([\w.]+)`", name), cells)
    numbers = lambda text: [float(number) for number in re.findall(r"-?\d[\d.]*(?:e-?\d+)?(?<!\.)", text)]
    found = []
    for name, value in settings.items():
        cells = rows.get(name, [""])
        if isinstance(value, dict) and "choice" not in value:
            found += missing_defaults(section, {f"{name}.{own}": inner for own, inner in value.items()})
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found += [] if value in numbers(cells[0]) else [f"{name}: {value}"]
        elif not isinstance(value, list):
            word = value["choice"] if isinstance(value, dict) else "none" if value in ("", None) else str(value)
            found += [] if word.lower() in cells[0].lower() else [f"{name}: {value}"]
        if isinstance(value, dict) and "choice" in value:
            own = {inner: number for inner, number in value.items() if isinstance(number, (int, float)) and not isinstance(number, bool)}
            told = {inner: numbers(" ".join(rows.get(f"{name}.{inner}", cells))) for inner in own}
            found += [f"{name}.{inner}: {number}" for inner, number in own.items() if number not in told[inner]]
    return found


@pytest.mark.parametrize("cell", ["0.2", "ForwardKL()", ""])
def test_another_default_on_the_page_is_seen(cell: str) -> None:
    section = f"| setting | default |\n| --- | --- |\n| `beta` | {cell} |\n| `form` | {cell} |"
    assert missing_defaults(section, {"beta": 0.1, "form": {"choice": "forward-kl"}}) == ["beta: 0.1", "form: {'choice': 'forward-kl'}"]
    assert missing_defaults("| `form` | kl | with 0.3 |", {"form": {"choice": "kl", "share": 0.3, "every": 3}}) == ["form.every: 3"]


def test_every_page_has_a_row() -> None:
    assert {path.stem for path in (ROOT / "docs/methods").glob("*.md")} == {method.name for method in METHODS} | PYTHON_ONLY
    assert not {method.name for method in METHODS} & PYTHON_ONLY, "a method with a row is no longer for Python only"


@pytest.mark.parametrize("name", sorted(PYTHON_ONLY))
def test_page_without_a_row(name: str) -> None:
    page = (ROOT / "docs/methods" / f"{name}.md").read_text()
    assert page.startswith(f"# {name}: ")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == HEADINGS
    assert "```python\n" in page
    assert "https://arxiv.org/abs/" in page.partition("## Sources")[2]


def test_a_misspelt_name_lists_the_near_ones() -> None:
    with pytest.raises(UsageError, match="simpo"):
        catalog.find("objective", "simpoo")
