"""The committed simulation: its claim, and that a fresh draw still agrees with it. Test of ops/segmenters.py, credit/asr.py."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from benchmarks.segmentation import EARLIER, NOISES, RIVALS, alternating, markdown, measure

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_change_point_beats_windows_and_pivots_at_every_noise_of_this_world() -> None:
    result = json.loads((RESULTS / "segmentation.json").read_text())
    assert markdown(result) == (RESULTS / "segmentation.md").read_text()
    rows = result["tables"]["alternating"]
    assert {float(noise) for noise in rows} == set(NOISES)
    for noise, row in rows.items():
        difference, half = row["change-point minus best rival"]
        assert difference - half > 0, noise
        for name, given in zip(row, EARLIER.get(noise, []), strict=False):
            assert given is None or abs(row[name][0] - given) < 0.022, (noise, name)


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """As the benchmark runs: small operations on several threads cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_a_fresh_draw_agrees(noise: float) -> None:
    row = json.loads((RESULTS / "segmentation.json").read_text())["tables"]["alternating"][str(noise)]
    draw = measure(alternating, noise, seed=1234)
    for name, accuracy in draw.items():
        mean, half = row[name]
        assert abs(accuracy - mean) < 4 * half * 10**0.5 / 2.262, name  # four standard deviations of one draw
    assert draw["change-point"] > max(draw[name] for name in RIVALS)
