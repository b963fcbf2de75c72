"""Pages keep their word: code runs, links resolve, tables match the catalog, every logged name is explained."""

import importlib
import importlib.util
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from finegrain import catalog, cli
from finegrain.cli import main
from finegrain.commands import SUMMARIES
from finegrain.recipes.training import align as alignment
from tests import test_catalog, test_settings
from tests.laws.objectives import LAWS, Law
from tests.laws.pairs import make_pair
from tests.pages import ROOT, Block, blocks, broken_links, commands, pages, prose
from tests.tiny import save_tiny, write_pairs, write_rows

PAGES = pages()
RUN_COMMANDS_OF = [ROOT / "README.md", *sorted((ROOT / "docs/guides").glob("*.md")), ROOT / "docs/methods/pama.md"]
FEWEST_PAGES, FEWEST_BLOCKS, FEWEST_COMMANDS = 40, 40, 6


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages talk about, in small: a model, pairs, pairs with spans, conversations, demonstrations."""
    folder = tmp_path_factory.mktemp("things")
    save_tiny(folder / "my-model")
    write_pairs(folder / "pairs.jsonl")
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]

    write = lambda name, lines: write_rows(folder / name, lines)
    write_pairs(folder / "other-pairs.jsonl", seed=3)
    write("spans.jsonl", [{**row, "rejected_spans": [[0, 10, -1.0]]} for row in rows])
    turns = lambda row, side: [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]
    write("chats.jsonl", [{"chosen": turns(row, "chosen"), "rejected": turns(row, "rejected")} for row in rows])
    write("demonstrations.jsonl", [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows])
    write("answers.jsonl", [{"prompt": row["prompt"], "responses": [row["chosen"], row["rejected"]]} for row in rows])
    (folder / "mine.py").write_text("def weigh(prompt, response, role, row):\n    return [(0, 5, 0.0)] if role == 'chosen' else None\n")
    return folder


@pytest.fixture
def desk(things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh copy of the things as working directory, with a cache of its own; one thread, as make sets it."""
    shutil.copytree(things, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(alignment, "ANSWER_TOKENS", 4)  # of the answers before and after, which no page speaks of
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def run_python(page: Path, block: Block, namespace: dict[str, object]) -> None:
    """Run a block with the page's own line numbers in tracebacks."""
    exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)


def run_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a finegrain command; a training command ends with one line of JSON."""
    arguments = shlex.split(command, comments=True)[1:]
    assert main(arguments) == 0, f"{command}\n{capsys.readouterr().err}"
    lines = capsys.readouterr().out.splitlines()
    if arguments[0] in ("prefer", "sft", "again") and "--help" not in arguments:
        json.loads(lines[-1])


def test_collected() -> None:
    found = [block for page in PAGES for block in blocks(page.read_text())]
    python = [block for block in found if block.language == "python" and block.skipped is None]
    run = [line for page in RUN_COMMANDS_OF for block in blocks(page.read_text()) for line in runnable(block)]
    print(f"{len(PAGES)} pages, {len(python)} blocks of Python, {len(run)} commands")
    assert len(PAGES) >= FEWEST_PAGES
    assert len(python) >= FEWEST_BLOCKS
    assert len(run) >= FEWEST_COMMANDS


def runnable(block: Block) -> list[str]:
    """Commands of ours that a block shows and that are to be run."""
    if block.language != "bash" or block.skipped is not None:
        return []
    return [line for line in commands(block) if line.startswith("finegrain ") and not line.startswith("finegrain demo")]


LONG = tuple(
    ROOT / "docs/guides" / f"{name}.md"
    for name in ("align-your-model", "evaluate-rewards", "iterate", "merge", "read-the-report", "reward-models", "score")
)
"""Pages whose commands train several models."""
BUILT = tuple(ROOT / "docs/guides" / f"{name}.md" for name in ("add-a-method", "add-a-command", "add-a-reward", "add-a-format"))
"""Guides whose blocks are files of the house: each has tests of its own."""
WITH_CODE = [page for page in PAGES if blocks(page.read_text()) and page not in BUILT]


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page), marks=pytest.mark.slow if page in LONG else ()) for page in WITH_CODE])
def test_code_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks of one page run in order, share names and a folder."""
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(page.read_text()):
        if block.skipped is not None or block.file is not None:
            continue
        if block.language == "python":
            run_python(page, block, namespace)
        elif page in RUN_COMMANDS_OF:
            for line in runnable(block):
                run_command(line, capsys)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One two\n\n[a](#one-two) [b](page.md#one-two) [c](#three) [d](away.md) [e](https://example.org)\n\n```\n[f](code.md)\n```\n")
    assert broken_links(page) == ["#three", "away.md"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_modules_exist(page: Path) -> None:
    """`finegrain.module.name` in running text can be imported."""
    for path in re.findall(r"`(finegrain(?:\.\w+)+)`", prose(page.read_text())):
        parts = path.split(".")
        for end in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:end]))
            except ModuleNotFoundError:
                continue
            for attribute in parts[end:]:
                found = getattr(found, attribute)
            break


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in SUMMARIES if f"finegrain {name}" not in text] == []


def test_readme_names_every_method() -> None:
    """Each row of the catalog with a link to its page, and no other."""
    text = (ROOT / "README.md").read_text()
    linked = set(re.findall(r"\[[\w-]+\]\(docs/methods/([\w-]+)\.md\)", text))
    assert linked == {method.name for method in catalog.METHODS} | test_catalog.PYTHON_ONLY


def test_the_guide_to_trl_quotes_the_script() -> None:
    """What the page shows is what benchmarks/in_trl.py runs."""
    script = (ROOT / "benchmarks/in_trl.py").read_text()
    python = [block for block in blocks((ROOT / "docs/guides/in-trl.md").read_text()) if block.language == "python"]
    shown = [line.strip() for block in python for line in block.text.splitlines()]
    run = {line.strip() for line in script.splitlines()}
    assert len(shown) > 40
    assert [line for line in shown if line not in run] == []


def test_the_guide_from_trl_names_what_exists(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line takes every flag and method in the right column of its tables, with the value shown."""
    page = (ROOT / "docs/guides/coming-from-trl.md").read_text()
    rows = re.findall(r"^\|.*\| ([^|]*) \|$", page, re.MULTILINE)
    shown = [text for row in rows for text in re.findall(r"`((?:--|objective:|head:)[^`]+)`", row)]
    assert len(shown) >= 40
    assert sum(text.startswith("head:") for text in shown) >= 8
    monkeypatch.setattr(cli, "recipe", lambda command: lambda settings: {})
    required = {"--model": "m", "--data": "d", "--out": "o"}
    for text in shown:
        words = shlex.split(text)
        rest = [word for flag, value in required.items() if flag not in words for word in (flag, value)]
        assert main(["reward" if text.startswith("head:") else "prefer", *rest, *words]) == 0, f"{text}\n{capsys.readouterr().err}"
    assert main(["prefer", *(word for pair in required.items() for word in pair), "--loss-type", "dpo"]) != 0


def test_what_a_site_loads_from_elsewhere_is_seen(tmp_path: Path) -> None:
    """Scripts, styles, fonts and images of another host, and no link that a reader follows."""
    spec = importlib.util.spec_from_file_location("offline", ROOT / "docs/offline.py")
    assert spec is not None
    assert spec.loader is not None
    offline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(offline)
    followed = '<a href="https://a.org">a</a><link rel="canonical" href="https://b.org">'
    (tmp_path / "good.html").write_text(followed + '<script src="_static/c.js"></script>')
    assert offline.loaded_from_elsewhere(tmp_path) == []
    loads = (
        '<script src="//a.org/x.js"></script>',
        '<img src="https://a.org/x.png">',
        '<link rel="stylesheet" href="https://a.org/x">',
        '<link rel="preconnect" href="https://a.org/x">',
        '<style>p { background: url("http://a.org/x") }</style>',
        '<p style="background: url(//a.org/x)">',
    )
    for page in loads:
        (tmp_path / "bad.html").write_text(page)
        assert len(offline.loaded_from_elsewhere(tmp_path)) == 1, page
    (tmp_path / "bad.html").unlink()
    (tmp_path / "fonts.css").write_text("@import 'https://a.org/x'; @font-face { src: url(https://a.org/y.woff2) }")
    assert offline.loaded_from_elsewhere(tmp_path) == ["fonts.css: https://a.org/x", "fonts.css: https://a.org/y.woff2"]


def test_index_links_every_guide_and_decision() -> None:
    text = (ROOT / "docs/index.md").read_text()
    for folder in ("guides", "decisions"):
        files = {f"{folder}/{page.name}" for page in (ROOT / "docs" / folder).glob("*.md")}
        assert {link for link in re.findall(r"\]\(([^)#]+)", text) if link.startswith(folder)} == files


@pytest.mark.parametrize("page", sorted((ROOT / "docs/decisions").glob("*.md")), ids=lambda page: page.stem)
def test_decision_has_its_parts(page: Path) -> None:
    assert re.match(r"\d{4}-[a-z-]+", page.stem)
    assert re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE) == ["Context", "Options", "Choice", "Price"]


GUIDE = ROOT / "docs/guides/add-a-method.md"


@pytest.fixture
def added(desk: Path, monkeypatch: pytest.MonkeyPatch) -> catalog.Method:
    """The method of the guide in its place: file importable, row in the table, test and page in a tree of their own."""
    found = blocks(GUIDE.read_text())
    for block in found:
        if block.file is not None:
            (desk / block.file).parent.mkdir(parents=True, exist_ok=True)
            (desk / block.file).write_text(block.text)
    name = "finegrain.objectives.truncated_quadratic"
    spec = importlib.util.spec_from_file_location(name, desk / "src/finegrain/objectives/truncated_quadratic.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    namespace: dict[str, object] = {}
    run_python(GUIDE, next(block for block in found if "row = Method(" in block.text), namespace)
    row = namespace["row"]
    assert isinstance(row, catalog.Method)
    monkeypatch.setattr(catalog, "METHODS", (*catalog.METHODS, row))
    monkeypatch.setattr(test_catalog, "ROOT", desk)
    return row


def test_the_guide_adds_a_method(added: catalog.Method, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its row, page and test pass what every method passes, and it trains from the command line and from Python."""
    test_catalog.test_row(added)
    test_catalog.test_settings(added)
    test_catalog.test_page(added)
    test_settings.test_a_value_of_another_type_is_refused(catalog.load("objective", added.name))
    source = (desk / "src/finegrain/objectives/truncated_quadratic.py").read_text()
    assert len([line for line in source.splitlines() if line.strip()]) <= 30
    tests: dict[str, object] = {"__name__": "guide"}
    for block in blocks(GUIDE.read_text()):
        if block.language == "python" and (block.file is None or block.file.startswith("tests/")):
            run_python(GUIDE, block, tests)
    written = [function for name, function in tests.items() if name.startswith("test_") and callable(function)]
    assert len(written) == 3
    for function in written:
        function()
    page = next(block for block in blocks((desk / f"docs/methods/{added.name}.md").read_text()) if block.language == "python")
    run_python(desk / "docs/methods", page, {})
    run_command(f"finegrain prefer --model my-model --data pairs.jsonl --out run2 --max-steps 2 objective:{added.name}", capsys)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_guides_method_keeps_the_laws(added: catalog.Method, law: Law) -> None:
    method = catalog.load("objective", added.name)()
    law(method, partial(make_pair, method))


RUNS = {
    "pairs": "prefer --data pairs.jsonl credit:asr",
    "two terms": "prefer --data pairs.jsonl objective:cpo",
    "measures of its own": "prefer --data pairs.jsonl objective:sparsepo",
    "unpaired": "prefer --data pairs.jsonl objective:kto",
    "reward": "reward --data pairs.jsonl head:ensemble",
    "demonstrations": "sft --data demonstrations.jsonl",
}


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("run", RUNS)
def test_every_logged_name_is_explained(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Names in metrics.jsonl and run.json stand on the page of metrics; `loss/<term>` stands for each term."""
    assert main([*shlex.split(RUNS[run]), "--model", "my-model", "--out", "run", "--max-steps", "2", "--samples", "0"]) == 0, capsys.readouterr().err
    explained = set(re.findall(r"`([^`\n]+)`", (ROOT / "docs/guides/metrics.md").read_text()))
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    record = json.loads(Path("run/run.json").read_text())
    names = {name for line in lines for name in line} | set(record) | set(record["evaluation"]) | set(record.get("credit", ()))
    generic = {re.sub(r"^loss/.*", "loss/<term>", re.sub(r"([/_])(chosen|rejected|answer)$", r"\1<side>", name)) for name in names - explained}
    generic = {name.removeprefix("eval_") for name in generic}
    assert generic - explained == set()
