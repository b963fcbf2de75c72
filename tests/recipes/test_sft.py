"""`finegrain sft`: demonstrations in every shape, under credit, and what it reports."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.recipes.command import Command
from tests.tiny import write_rows


def test_demonstrations_are_learnt(command: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"why {i} ?", "completion": " the cat sat on the mat ."} for i in range(12)])
    done = command.prefer("run", "--data", data, "--epochs", "25", "--lr", "0.01", "--samples", "1", "--examined", "0", command="sft")
    assert done.code == 0, done.error
    lines = command.lines("run")
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[0]["logp_per_token"] == pytest.approx(-lines[0]["loss"], rel=1e-5)
    assert not any(name.startswith("rewards/") for name in lines[0])
    record = command.record("run")
    assert record["settings"]["objective"]["method"] == "nll"
    assert record["rows"] == 11
    assert record["beside_training"]["rows"] == 0, "no reference pass"
    sample = json.loads((command.folder / "run" / "samples.jsonl").read_text().splitlines()[0])
    assert "the cat" in sample["after"]
    assert AutoModelForCausalLM.from_pretrained(command.folder / "run").dtype == torch.float32
    AutoTokenizer.from_pretrained(command.folder / "run")


def test_pairs_give_their_chosen_side(command: Command, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in command.data.read_text().splitlines()]
    data = write_rows(tmp_path / "chosen.jsonl", [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows])
    assert command.prefer("pairs", "--max-steps", "2", command="sft").code == 0
    assert command.prefer("chosen", "--data", data, "--max-steps", "2", command="sft").code == 0
    assert command.lines("pairs") == command.lines("chosen")


def test_credit_masks_demonstrations(command: Command, tmp_path: Path) -> None:
    """ARJ: SFT on accepted samples under the mask."""
    rows = [{"prompt": f"why {i} ?", "completion": " good people said no .", "spans": [[1, 5, 1.0]]} for i in range(12)]
    data = write_rows(tmp_path / "spans.jsonl", rows)
    done = command.prefer("run", "--data", data, "--max-steps", "2", "objective:arj", "credit:asr", command="sft")
    assert done.code == 0, done.error
    assert 0.05 < command.lines("run")[0]["credit/kept_answer"] < 0.95


def test_own_scorer_needs_pairs(command: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"why {i} ?", "completion": " yes ."} for i in range(12)])
    done = command.prefer("run", "--data", data, "credit:asr", command="sft")
    assert done.code == 5
    assert "--credit.scorer" in done.error
