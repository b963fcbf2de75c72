"""`prefer objective:bfpo`: two flags of a pair, a buffer of general pairs beside them, selective tuning, and data that do not fit.

Test of objectives/bfpo.py, data/load.py, recipes/training/columns.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.recipes.command import Command
from tests.tiny import write_rows

SAFE = ["objective:bfpo", "--gate.harmless-order", "drop"]


def safety_rows(folder: Path, count: int = 12) -> Path:
    """Rows as PKU-SafeRLHF has them: every third one contradicts itself by helpfulness and harmlessness."""
    rows = [
        {
            "prompt": f"How does lock {row} open ?",
            "response_0": f"good key {row}",
            "response_1": f"bad pin {row} and more",
            "is_response_0_safe": row % 4 != 1,
            "is_response_1_safe": row % 2 == 0,
            "better_response_id": int(row % 3 == 0),
            "safer_response_id": 0,
        }
        for row in range(count)
    ]
    return write_rows(folder / "safety.jsonl", rows)


def logged(command: Command, run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (command.folder / run / "metrics.jsonl").read_text().splitlines()]


def test_two_streams_and_selective_tuning(command: Command) -> None:
    both = f"{command.data} + {safety_rows(command.folder)}"
    asked = [*SAFE, "--data", both, "objective.unflagged:assume-safe", "--second-share", "0.5", "--train-only", "down_proj"]
    done = command.prefer("run", *asked, "--batch-size", "24", "--max-steps", "3", "--lr", "1e-3", "--holdout", "0")
    assert done.code == 0, done.error
    record = command.record("run")
    plain = len(command.data.read_text().splitlines())
    found = {one["kind"]: one for one in record["data"]["findings"]}
    assert (found["harmless_order"]["action"], found["harmless_order"]["count"]) == ("dropped", 12)
    assert (found["assumed"]["action"], found["assumed"]["count"]) == ("kept", plain)
    assert found["assumed"]["example"] == "is_chosen_safe is 1, is_rejected_safe is 1"
    assert record["reading"]["second_rows"] == 12
    assert record["reading"]["second_rows_of_a_step"] == 12
    first = logged(command, "run")[0]
    assert first["loss/first_stream"] == pytest.approx(50.0**2), "a policy that is its reference, and two safe answers"
    assert first["loss/second_stream"] == pytest.approx((9 * 50.0**2 + 3 * 100.0**2) / 12), "a quarter of the rows has one safe answer"
    assert first["loss"] == pytest.approx(first["loss/first_stream"] + first["loss/second_stream"])
    before, after = (load_file(folder / "model.safetensors") for folder in (command.model, command.folder / "run"))
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved == {name for name in before if "down_proj" in name}
    assert command("again", command.folder / "run", "--out", command.folder / "twice").code == 0
    assert all(torch.equal(tensor, after[name]) for name, tensor in load_file(command.folder / "twice" / "model.safetensors").items())


def test_flags_of_ordinary_pairs(command: Command) -> None:
    rows = [json.loads(line) for line in command.data.read_text().splitlines()]
    flags = lambda place: {"is_chosen_safe": place % 2 == 0, "is_rejected_safe": int(place % 3 == 0)}
    data = write_rows(command.folder / "flagged.jsonl", [{**row, **flags(place)} for place, row in enumerate(rows)])
    done = command.prefer("run", "objective:bfpo", "--data", data, "--max-steps", "1", "--batch-size", str(len(rows)), "--holdout", "0")
    assert done.code == 0, done.error
    targets = [(3 * one["is_chosen_safe"] - one["is_rejected_safe"]) / 2 - 0.5 for one in map(flags, range(len(rows)))]
    want = sum((100 * target) ** 2 for target in targets) / len(rows)
    assert abs(logged(command, "run")[0]["loss"] - want) < 1e-3


def test_rows_without_flags_are_an_error(command: Command) -> None:
    done = command.prefer("run", "objective:bfpo")
    assert done.code != 0
    assert "BFPO reads the column is_chosen_safe, and the rows of --data have no number there" in done.error
    both = f"{safety_rows(command.folder)} + {command.data}"
    done = command.prefer("run", *SAFE, "--data", both)
    assert done.code != 0
    assert "BFPO reads the column is_chosen_safe, and some rows of --data have no number there" in done.error


def test_pairs_by_harmlessness_are_an_error(command: Command) -> None:
    done = command.prefer("run", "objective:bfpo", "--data", safety_rows(command.folder))
    assert done.code != 0
    assert "are ordered by harmlessness (harmless 1, helpful 0); add --gate.harmless-order drop" in done.error


def test_a_flag_that_is_none_drops_its_row(command: Command) -> None:
    rows = [{**json.loads(line), "is_chosen_safe": 1, "is_rejected_safe": 0} for line in command.data.read_text().splitlines()]
    rows[1]["is_chosen_safe"], rows[2]["is_rejected_safe"] = 3, float("nan")
    data = write_rows(command.folder / "odd.jsonl", rows)
    done = command.prefer("run", "objective:bfpo", "--data", data, "--max-steps", "1")
    assert done.code == 0, done.error
    assert command.record("run")["data"]["dropped"] == {"out_of_range": 1, "not_a_number": 1}
