"""From the names of the reference values to the public API, and nothing else: adapters hold no formula.

One module per family beside this file; each has a table ADAPTERS.
"""

from tests.golden import ava, curation, dense_rewards, entanglement, evaluation, irl_sft, preference, uncertainty
from tests.golden.given import Adapters

ADAPTERS: Adapters = {
    **ava.ADAPTERS,
    **curation.ADAPTERS,
    **dense_rewards.ADAPTERS,
    **entanglement.ADAPTERS,
    **evaluation.ADAPTERS,
    **irl_sft.ADAPTERS,
    **preference.ADAPTERS,
    **uncertainty.ADAPTERS,
}

SKIPPED: dict[tuple[str, str, str], str] = {
    ("gradient-entanglement", "*", "condition_ratio_official_bug"): (
        "a fault of the original: its column takes the minimum over the chosen answer's squared norm twice and never looks at the rejected one's"
    ),
}
"""(slug, case or "*", output) -> why that output is deliberately not reproduced."""
