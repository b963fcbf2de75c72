"""From the names of the reference values to the public API, and nothing else: adapters hold no formula.

One module per family beside this file; each has a table ADAPTERS.
"""

from tests.golden import ava, curation, dense_rewards, evaluation, irl_sft, merging, preference, uncertainty
from tests.golden.given import Adapters

ADAPTERS: Adapters = {
    **ava.ADAPTERS,
    **curation.ADAPTERS,
    **dense_rewards.ADAPTERS,
    **evaluation.ADAPTERS,
    **irl_sft.ADAPTERS,
    **merging.ADAPTERS,
    **preference.ADAPTERS,
    **uncertainty.ADAPTERS,
}

SKIPPED: dict[tuple[str, str, str], str] = {}
"""(slug, case or "*", output) -> why that output is deliberately not reproduced."""
