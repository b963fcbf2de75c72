"""Planted faults are named: each from a run directory built in code, and a sound run is not accused of any. Test of report/verdicts.py."""

from pathlib import Path
from typing import Any

import pytest

from finegrain.diagnose import confidence, coverage, displacement, length
from finegrain.report.page import render
from finegrain.report.read import read_run
from finegrain.report.verdicts import make_blocks
from tests.report.runs import pairs, write_run

LIKELIHOOD, LENGTH, CREDIT = "Chosen and rejected log-probability", "Length against reward", "What the credit keeps"


def verdicts(folder: Path) -> dict[str, str]:
    return {block.title: block.verdict for block in make_blocks(read_run(folder))}


def test_a_sound_run_is_not_accused(tmp_path: Path) -> None:
    found = verdicts(write_run(tmp_path / "run", pairs(weight=0.5)))
    assert found[LIKELIHOOD] == displacement.RAISED
    assert found[LENGTH] != length.HACKED
    assert found[CREDIT] == coverage.PARTIAL


def test_a_displaced_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs(chosen=-4.0, rejected=-9.0))
    assert verdicts(folder)[LIKELIHOOD] == displacement.DISPLACED
    page = render([read_run(folder)])
    assert "Likelihood displacement: the chosen answers became less probable" in page
    worst = min(read_run(folder).pairs or [], key=lambda pair: pair.change("chosen"))
    assert f'data-row="{worst.row}">row {worst.row} (' in page


def test_a_run_rewarded_for_length(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs(chosen=0.0, rejected=0.0, per_token=0.5))
    assert verdicts(folder)[LENGTH] == length.HACKED
    assert "Length hacking: the reward correlates strongly with length" in render([read_run(folder)])


@pytest.mark.parametrize("from_pairs", [True, False])
def test_a_mask_that_drops_everything(tmp_path: Path, from_pairs: bool) -> None:
    """Seen in the pairs, and without them in what run.json says the credit kept."""
    record = {"credit": {"credit/kept/chosen": 0.0, "credit/kept/rejected": 0.0}}
    folder = write_run(tmp_path / "run", pairs(chosen=0.0, rejected=0.0, weight=0.0) if from_pairs else None, record=record)
    assert verdicts(folder)[CREDIT] == coverage.DROPS_ALL
    assert "The credit drops everything" in render([read_run(folder)])


def test_a_mask_that_drops_one_side_is_named_with_the_side(tmp_path: Path) -> None:
    record = {"credit": {"credit/kept/chosen": 0.5, "credit/kept/rejected": 0.0}}
    folder = write_run(tmp_path / "run", None, record=record)
    block = next(block for block in make_blocks(read_run(folder)) if block.title == CREDIT)
    assert block.verdict == coverage.DROPS_ALL
    assert "rejected" in block.words
    assert "chosen" not in block.words


def test_a_certainty_is_no_mask(tmp_path: Path) -> None:
    """Weights near 0 say that rewards are unsure, not that the credit drops the answer."""
    record = {"credit_weight": "certainty", "credit": {"credit/kept/chosen": 0.004}}
    found = verdicts(write_run(tmp_path / "run", pairs(weight=0.004), record=record))
    assert CREDIT not in found
    assert found["Certainty of the token rewards"] == "not judged"


HELD = "Held-out rows"


@pytest.mark.parametrize(
    ("evaluation", "verdict"),
    [
        ({"eval_accuracy": {"mean": 0.8, "low": 0.6, "high": 0.9, "rows": 40}}, confidence.RANKS),
        ({"eval_accuracy": {"mean": 0.2, "low": 0.1, "high": 0.4, "rows": 40}}, confidence.REVERSED),
        ({"eval_accuracy": {"mean": 0.6, "low": 0.4, "high": 0.8, "rows": 40}}, confidence.GUESSES),
        ({"eval_accuracy": {"mean": 1.0, "low": 0.6, "high": 1.0, "rows": 5}}, confidence.GUESSES),
        ({"eval_auroc": {"mean": 0.8, "low": 0.6, "high": 0.9, "rows": 40}, "eval_margin": {"low": -2, "high": -1, "rows": 40}}, confidence.RANKS),
        ({"eval_margin": {"mean": 0.2, "low": 0.1, "high": 0.3, "rows": 40}}, confidence.RANKS),
        ({"eval_loss": {"mean": 0.2, "low": 0.1, "high": 0.3, "rows": 40}}, None),
        ({"eval_accuracy": 0.7}, None),
    ],
)  # fmt: skip
def test_held_out_results_of_a_policy(tmp_path: Path, evaluation: dict[str, Any], verdict: str | None) -> None:
    found = verdicts(write_run(tmp_path / "run", None, record={"evaluation": evaluation}))
    assert found.get(HELD) == verdict


def test_a_result_without_an_interval_shows_its_reason(tmp_path: Path) -> None:
    loss = {"mean": None, "low": None, "high": None, "rows": 0, "reason": "no loss: it trains on token rewards"}
    kept = {"step": 4, "of": 9, "keep": "best", "by": "eval_loss"}
    folder = write_run(tmp_path / "run", None, record={"evaluation": {"eval_loss": loss}, "kept": kept})
    page = render([read_run(folder)])
    assert "no loss: it trains on token rewards" in page
    assert "The model of step 4 of 9 was kept, the best of the evaluated ones by eval_loss." in page
