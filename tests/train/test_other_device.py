"""A device that is not the host: nothing mixes, nothing is float64 there, and it waits for the host as rarely as can be.

Test of train/loop.py, ops/precision.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.train.device_worker import COMMANDS
from tests.train.harness import OBJECTIVES

FIRST = ["dpo", "aot", "a module and a table"]
"""Plain, with statistics, and with all that few objectives have."""


def seen(folder: Path, *names: str) -> dict[str, Any]:
    environment = {**os.environ, "FINEGRAIN_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.train.device_worker", str(folder), *names]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


MORE = {"ava-p": 5, "late counts and a replaced table": 16}
"""Waits in the two steps beside what every objective waits for: of one in two parts, and of one that reads a statistic of its columns in every
micro-batch and replaces a table."""


def check_steps(found: dict[str, Any], more: int = 0) -> None:
    """Denominators, what is logged and the gradient's norm come to the host once a step, however many micro-batches it has."""
    assert found["difference"] <= 5e-6
    assert found["waits"] == 3 * 2 + more, "three in each of the two steps"
    assert found["micro_batches"] > 2


@pytest.mark.slow
def test_steps_on_an_emulated_device_are_steps_here(tmp_path: Path) -> None:
    found = seen(tmp_path, *FIRST)
    made, mixed, table = found["refused"]
    assert "no float64" in made
    assert "no float64" in table
    assert "host and on the device" in mixed
    for name in FIRST:
        check_steps(found[name])


@pytest.mark.slow
def test_all_objectives_and_whole_commands_there(tmp_path: Path) -> None:
    rest = [name for name in OBJECTIVES if name not in FIRST]
    found = seen(tmp_path, *rest, *COMMANDS)
    for name in rest:
        check_steps(found[name], MORE.get(name, 0))
    for name in COMMANDS:
        there, here = found[name]
        assert len(there) == 2
        assert there == pytest.approx(here, rel=1e-4)
