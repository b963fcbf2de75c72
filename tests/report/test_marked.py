"""The finding on marked tokens: verdicts from recorded results, every number with its interval, hostile names of aspects cut."""

from typing import Any

import pytest

from finegrain.diagnose import confidence
from finegrain.report.marked import report_marked
from finegrain.report.read import Run
from finegrain.run_record import RunRecord


def of(**found: tuple[float, float | None, float | None]) -> Run:
    results = {f"eval_token_{name}": {"mean": mean, "low": low, "high": high, "rows": 40} for name, (mean, low, high) in found.items()}
    return Run(name="run", record=RunRecord(evaluation={"eval_loss": 0.5, **results}))


@pytest.mark.parametrize(
    ("area", "place", "verdict"),
    [
        ((0.8, 0.7, 0.9), (0.6, 0.5, 0.7), confidence.RANKS),
        ((0.8, 0.7, 0.9), (0.75, 0.5, 0.9), confidence.GUESSES),
        ((0.6, 0.45, 0.7), (0.3, 0.2, 0.4), confidence.GUESSES),
        ((0.3, 0.2, 0.4), (0.1, 0.0, 0.2), confidence.REVERSED),
        ((0.9, None, None), (0.5, 0.4, 0.6), confidence.GUESSES),
    ],
)
def test_verdicts(area: Any, place: Any, verdict: str) -> None:
    block = report_marked(of(auroc=area, auroc_place=place))
    assert block is not None
    assert block.verdict == verdict


def test_few_answers_have_no_verdict() -> None:
    run = of(auroc=(0.9, 0.8, 1.0))
    assert run.record.evaluation is not None
    run.record.evaluation["eval_token_auroc"]["rows"] = 5
    block = report_marked(run)
    assert block is not None
    assert block.verdict == confidence.GUESSES


def test_numbers_by_name() -> None:
    aspect = "x" * 500
    block = report_marked(of(**{"auroc": (0.8, 0.7, 0.9), f"auroc_within_place/{aspect}": (0.6, 0.5, 0.7), "nll": (0.4, 0.3, 0.5)}))
    assert block is not None
    first, second = block.numbers
    assert (first.name, first.value, first.interval) == ("area under the ROC curve, all tokens", "0.8", "0.7 to 0.9, 40 answers")
    assert second.name.startswith("the same within answers, xxx")
    assert second.name.endswith(", place alone")
    assert len(second.name) < 120


def test_a_run_without_marks_has_none() -> None:
    assert report_marked(of(nll=(0.4, 0.3, 0.5))) is None
    assert report_marked(Run(name="run", record=RunRecord())) is None
