"""RewardUQ's metrics of pairs by other code: accuracy, expected calibration error, Brier score.

Test of evaluate/accuracy.py, evaluate/calibration.py.
"""

import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from finegrain.evaluate.accuracy import pair_accuracy
from finegrain.evaluate.calibration import pair_calibration

pytestmark = pytest.mark.slow


def metrics_of_rewarduq(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its file of metrics by itself: the package's own import wants a TRL of 2025."""
    found = importlib.util.find_spec("rewarduq")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tests/witnesses.txt is not installed: `make slow` does it")
    reporters = ModuleType("rewarduq.utils")
    reporters.normalize_report_to = lambda report_to: []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rewarduq.utils", reporters)
    spec = importlib.util.spec_from_file_location("rewarduq_metrics", f"{found.submodule_search_locations[0]}/metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pair_metrics_are_those_of_rewarduq(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts every pair in both directions over 20 bins of [0, 1], ours the preferred answer over 10 bins of [1/2, 1]: the same mean."""
    theirs = metrics_of_rewarduq(monkeypatch)
    generator = np.random.default_rng(0)
    chosen, rejected = generator.normal(0.4, 1.5, 300), generator.normal(0.0, 1.5, 300)
    given = {"rewards": np.repeat(np.stack([chosen, rejected], 1)[..., None], 3, axis=2)}  # (N, 2, 3): mean, lower, upper
    own, other = pair_calibration(chosen, rejected), theirs.calibration_statistics(given)
    assert own.error.mean == pytest.approx(other["prefs/ece"])
    assert own.brier.mean == pytest.approx(other["prefs/brier_score"])
    assert pair_accuracy(chosen, rejected).accuracy.mean == pytest.approx(theirs.win_rate(given)["win_rate"])
