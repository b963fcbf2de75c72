"""Every test runs with shapes and types checked at run time, and with a fixed seed."""

from functools import cache

import pytest
import torch
import tyro._docstrings

from tests import type_checks

type_checks.install()
# The parser of commands tokenises the classes of its settings for every command; their source does not change here.
tyro._docstrings._ClassTokenization.make = staticmethod(cache(tyro._docstrings._ClassTokenization.make))


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
