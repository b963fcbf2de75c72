"""The parts of a run that `benchmarks/time_of_run.py` times exist, and their seconds add up."""

from types import SimpleNamespace

import pytest
from benchmarks.time_of_run import PARTS, Stopwatch, find_function

from benchmarks import time_of_run


@pytest.mark.parametrize("place", [place for places in PARTS.values() for place in places])
def test_what_is_timed_exists(place: str) -> None:
    owner, name = find_function(place)
    assert callable(getattr(owner, name))


def test_parts_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr(time_of_run, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(time_of_run, "BORN", next(clock))
    watch = Stopwatch()
    inner = watch.around("inner", lambda: None)
    watch.around("outer", inner)()
    watch.turn("the rest")
    assert watch.seconds == {"the rest": 1.0 + 5.0, "outer": 2.0 + 4.0, "outer > inner": 3.0}
    assert watch.calls["outer"] == watch.calls["outer > inner"] == 1
