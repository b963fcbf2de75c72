"""Every test runs with shapes and types checked at run time, and with a fixed seed."""

import gc
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: thousands of tiny operations are faster on one thread
os.environ.setdefault("FINEGRAIN_PRODUCTS", "onednn")  # the same order of summation in all processes, whatever is faster here

from tests import known_parsers, type_checks

pytest_plugins = ["tests.costs"]
type_checks.install()
known_parsers.install()


def pytest_collection_finish() -> None:
    """What is imported by now is no garbage: looking through it again and again is a tenth of a run's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_runtest_setup() -> None:
    """Functions that the test before called often are checked again."""
    type_checks.Checks.begin_test()


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    import torch  # not above: the process that hands tests to the workers runs none

    torch.default_generator.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)  # where there is none, it would be noted down for later, with the whole stack, thousands of times
