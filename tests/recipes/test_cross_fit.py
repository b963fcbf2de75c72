"""The scorers that a run makes of its own pairs: every row is scored by the fit that has not seen it.

Test of train/fit.py, recipes/training/own_scorer.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from finegrain.commands.settings import Common, Training
from finegrain.credit.asr import ASR
from finegrain.data.gate.settings import Gate
from finegrain.models.lora import Lora
from finegrain.objectives.dpo import DPO
from finegrain.recipes.training.align import align
from finegrain.recipes.training.job import Job
from finegrain.train.optim import Optim
from tests.tiny import write_rows

SWAPPED = 2


def rewards(model: Path, data: Path, out: Path) -> dict[str, list[np.ndarray]]:
    """Token rewards of every answer, as the run's own scorers give them."""
    found: dict[str, list[np.ndarray]] = {}

    def watch(trainer: Any, line: Any) -> None:
        found.update({role: [np.asarray(row) for row in columns.reward] for role, columns in trainer.data.token_columns.items()})

    common = Common(device="cpu", lr=1e-3)
    training = Training(batch_size=4, holdout=0.0, samples=0, examined=0)
    credit = ASR(min_kept=0.0, max_kept=1.0)
    align(Job("prefer", str(model), str(data), out, DPO(), credit, common, training, Lora(), Optim(), {}, gate=Gate()), watch)
    return found


def test_no_row_is_scored_by_the_fit_that_has_seen_it(model: Path, data: Path, tmp_path: Path) -> None:
    """Swapping the two answers of a pair changes the fit of its own half alone: its scores stay as they are, and those of the other half change."""
    rows = [json.loads(line) for line in data.read_text().splitlines()][:12]
    write_rows(tmp_path / "rows.jsonl", rows)
    rows[SWAPPED] |= {"chosen": rows[SWAPPED]["rejected"], "rejected": rows[SWAPPED]["chosen"]}
    write_rows(tmp_path / "swapped.jsonl", rows)
    before, after = (rewards(model, tmp_path / f"{name}.jsonl", tmp_path / name) for name in ("rows", "swapped"))
    for role, other in (("chosen", "rejected"), ("rejected", "chosen")):
        np.testing.assert_allclose(after[other][SWAPPED], before[role][SWAPPED], atol=1e-6)
    moved = [row for row in range(12) if row != SWAPPED and np.abs(after["chosen"][row] - before["chosen"][row]).max() > 1e-5]
    assert len(moved) == 6, "the rows of the other half are scored by the fit that has seen the swapped pair"
