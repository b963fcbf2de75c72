"""From the names of the reference values to the public API, and nothing else: adapters hold no formula.

One module per family beside this file; each has a table ADAPTERS.
"""

from tests.golden import (
    ava,
    bfpo,
    cpl,
    curation,
    dense_rewards,
    drafts,
    entanglement,
    evaluation,
    irl_sft,
    lol,
    merging,
    online,
    preference,
    revisions,
    token_kl,
    uncertainty,
)
from tests.golden.given import Adapters

ADAPTERS: Adapters = {
    **ava.ADAPTERS,
    **bfpo.ADAPTERS,
    **cpl.ADAPTERS,
    **curation.ADAPTERS,
    **dense_rewards.ADAPTERS,
    **drafts.ADAPTERS,
    **entanglement.ADAPTERS,
    **evaluation.ADAPTERS,
    **irl_sft.ADAPTERS,
    **lol.ADAPTERS,
    **merging.ADAPTERS,
    **online.ADAPTERS,
    **preference.ADAPTERS,
    **revisions.ADAPTERS,
    **token_kl.ADAPTERS,
    **uncertainty.ADAPTERS,
}

SKIPPED: dict[tuple[str, str, str], str] = {
    (
        "sparsepo",
        "*",
        "mapo_mask_official_fp16",
    ): "its mean, deviation and extremes are rounded to float16; ours is the exact mask, which is compared",
    ("gradient-entanglement", "*", "condition_ratio_official_bug"): (
        "a fault of the original: its column takes the minimum over the chosen answer's squared norm twice and never looks at the rejected one's"
    ),
}
"""(slug, case or "*", output) -> why that output is deliberately not reproduced."""
