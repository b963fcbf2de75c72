"""What the tests cost: the CPU seconds of all workers and of the ten dearest files, printed at the end of a run of several files."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest

_files: Counter[str] = Counter()
_workers: list[float] = []


def _spent() -> float:
    """CPU seconds of this process and of those it has waited for."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test, with the fixtures it sets up and tears down."""
    started = _spent()
    result = yield
    _files[item.location[0]] += _spent() - started
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker sends what it has spent."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["costs"] = (_spent(), dict(_files))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """The controller adds it up."""
    seconds, files = getattr(node, "workeroutput", {}).get("costs", (0.0, {}))
    _workers.append(seconds)
    _files.update(files)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The sum, and the ten files that took the most."""
    if len(_files) < 2:
        return
    own = sum(os.times()[:2]) if _workers else _spent()  # the workers have sent theirs
    total, tests = own + sum(_workers), sum(_files.values())
    terminalreporter.write_line(f"{total:.0f} CPU seconds, {tests:.0f} of them in {len(_files)} files of tests; the ten dearest:")
    for name, seconds in _files.most_common(10):
        terminalreporter.write_line(f"{seconds:7.1f}  {name}")
