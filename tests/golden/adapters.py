"""From the names of the reference values to the public API, and nothing else: adapters hold no formula.

One module per family beside this file; each has a table ADAPTERS.
"""

from tests.golden import ava, dense_rewards, evaluation, preference
from tests.golden.given import Adapters

ADAPTERS: Adapters = {**ava.ADAPTERS, **dense_rewards.ADAPTERS, **evaluation.ADAPTERS, **preference.ADAPTERS}

SKIPPED: dict[tuple[str, str, str], str] = {}
"""(slug, case or "*", output) -> why that output is deliberately not reproduced."""
