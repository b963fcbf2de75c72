"""Every test runs with shapes and types checked at run time, and with a fixed seed."""

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("finegrain", "beartype.beartype")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
