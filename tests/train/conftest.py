"""Laws of the loop, which hold over some hundred runs."""

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture(autouse=True, scope="package")
def _without_shape_checks() -> Iterator[None]:
    """They would double the time of some hundred runs; the tests of the recipes keep them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
