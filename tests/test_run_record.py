"""run.json: its keys, in one record (`run_record.py`), on one page, written by the files that the record names."""

import ast
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from finegrain.run_record import NAMES, RunRecord
from finegrain.runs import RunDirectory

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "finegrain"
PAGE = ROOT / "docs" / "guides" / "run-record.md"
WRITER = re.compile(r" \(([\w/]+\.py)\)\.$")


def described() -> dict[str, str]:
    """What the record says of every field, in its order."""
    module = ast.parse((SOURCE / "run_record.py").read_text())
    body = next(node for node in module.body if isinstance(node, ast.ClassDef)).body
    found = {}
    for node, after in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id != "other":
            assert isinstance(after, ast.Expr), f"{node.target.id} is not explained"
            found[node.target.id] = str(ast.literal_eval(after.value))
    return found


def table() -> str:
    """The page's table: it is generated from the record."""
    rows = [f"| `{name}` | {WRITER.sub('.', words)} | `{WRITER.search(words)[1]}` |" for name, words in described().items()]  # type: ignore[index]
    return "\n".join(["| key | what it holds | written by |", "| --- | --- | --- |", *rows])


def test_the_page_says_what_the_record_says() -> None:
    """`python -m tests.test_run_record` writes the table into the page."""
    assert table() in PAGE.read_text()


def test_every_key_is_explained_with_the_file_that_writes_it() -> None:
    assert tuple(described()) == NAMES
    for name, words in described().items():
        writer = WRITER.search(words)
        assert writer is not None, name
        text = (SOURCE / writer[1]).read_text()
        assert re.search(rf"\b{name}\b", text), f"{writer[1]} does not mention {name}"


def test_unknown_keys_of_another_version_survive(tmp_path: Path) -> None:
    """Read, extended and written: what this version does not know is there as it was, and null is no key."""
    stored: dict[str, Any] = {"command": "prefer", "steps": "many", "settings": {"a": 1}, "seen_by_version_9": [1, {"deep": None}], "kept": None}
    (tmp_path / "run.json").write_text(json.dumps(stored))
    record = RunDirectory(tmp_path).read_record()
    assert (record.command, record.steps, record.kept) == ("prefer", "many", None)
    RunDirectory(tmp_path).write_record(record.plus({"status": "finished", "counted_by_a_head": {"rows": 3}}))
    written = json.loads((tmp_path / "run.json").read_text())
    del stored["kept"]
    assert written == {**stored, "status": "finished", "counted_by_a_head": {"rows": 3}}


@pytest.mark.parametrize("name", ["credits", "evaluations"])
def test_a_misspelt_field_is_no_field(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        RunRecord(**{name: {}})


if __name__ == "__main__":
    head, _, rest = PAGE.read_text().partition("| key |")
    PAGE.write_text(head + table() + rest[rest.index("\n\n") :])
