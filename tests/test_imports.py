"""Every module imports, and what must answer at once loads nothing heavy. One process with a clean slate checks it all."""

import json
import subprocess
import sys
from pathlib import Path

from tests.test_layers import FEWEST_FILES

SCRIPT = """
import contextlib, importlib, io, json, pkgutil, sys
HEAVY = ("torch", "transformers", "accelerate", "datasets", "peft", "tyro", "scipy", "numpy", "pyarrow", "jinja2", "jaxtyping", "rich")
loaded = {}

def look(name):
    loaded[name] = [package for package in HEAVY if package in sys.modules]

def quietly(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(list(arguments))
    return [code, out.getvalue() + err.getvalue()]

import finegrain
look("import finegrain")
from finegrain.cli import main
answers = {"--help": quietly("--help"), "methods": quietly("methods"), "prefr": quietly("prefr"), "--version": quietly("--version")}
look("table of strings")
from finegrain.objectives.dpo import DPO
look("one objective")
families = {"credit", "objectives", "rewards", "curate", "online", "weights", "search", "evaluate", "diagnose", "methods", "ops"}
names = [module.name for module in pkgutil.walk_packages(finegrain.__path__, "finegrain.")]
for name in names:
    if name.split(".")[1] in families:
        importlib.import_module(name)
look("all families")
answers["prefer --help"] = quietly("prefer", "--help", "objective:dpo", "credit:asr")
look("help of a command")
for name in names:
    importlib.import_module(name)
for name in finegrain.__all__:
    getattr(finegrain, name)
print(json.dumps({"loaded": loaded, "answers": answers, "modules": names}))
"""


def test_imports() -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{len(found['modules'])} modules imported")
    assert len(found["modules"]) >= FEWEST_FILES - 1

    loaded, answers = found["loaded"], found["answers"]
    assert loaded["import finegrain"] == []
    assert loaded["table of strings"] == []
    assert "torch" in loaded["one objective"], "the look would notice"
    assert not {"transformers", "accelerate", "datasets", "peft"} & set(loaded["all families"])
    assert set(loaded["help of a command"]) <= {"torch", "tyro", "scipy", "numpy", "jaxtyping"}

    assert answers["--help"][0] == answers["methods"][0] == answers["--version"][0] == answers["prefer --help"][0] == 0
    assert "finegrain prefer" in answers["--help"][1]
    assert "objective:dpo" in answers["methods"][1]
    assert "--objective.beta" in answers["prefer --help"][1]
    assert answers["prefr"][0] == 2
    assert "prefer" in answers["prefr"][1]
