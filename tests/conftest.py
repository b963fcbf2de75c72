"""Every test runs with shapes and types checked at run time, and with a fixed seed."""

import pytest
import torch

from tests import type_checks

type_checks.install()


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
