"""A quarter of a million pairs need no more private memory than twenty-five thousand, from the file to the plan.

Test of data/store.py, data/holdout.py.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SMALL, LARGE = 25_000, 250_000
MOST = 1.3
"""Largest ratio of private memory at its peak."""


def cost(folder: Path, rows: int) -> dict[str, Any]:
    """What the driver says of so many rows."""
    command = [sys.executable, "-m", "tests.data.scale_driver", str(folder), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="private memory is read from /proc")
def test_memory_is_flat_in_the_rows(tmp_path: Path) -> None:
    small, large = cost(tmp_path, SMALL), cost(tmp_path, LARGE)
    for found in (small, large):
        print(
            f"{found['rows']} rows: {found['rows_per_second']:.0f} rows/s, private memory {found['peak'] / 2**20:.0f} MiB at its peak "
            f"({found['before'] / 2**20:.0f} MiB before), {found['stored'] / found['prompt_and_answer_tokens']:.1f} bytes stored per token"
        )
        assert found["kept"] == found["rows"] == found["train"] + found["held"]
        assert found["visited"] == found["train"]
        assert 0 < found["tokens"] < found["prompt_and_answer_tokens"]
    assert large["peak"] <= MOST * small["peak"], (small["peak"], large["peak"])
