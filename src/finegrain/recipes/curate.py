"""`finegrain curate`: columns that repair preference pairs, or new pairs from trees of responses."""

from typing import Any

from finegrain.commands.curate import CurateSettings
from finegrain.curate.mpo import EASY, HARD, MPO
from finegrain.curate.tree_rm import TreeRM
from finegrain.data.sources import check_one
from finegrain.recipes.curation.tree_pairs import tree_pairs
from finegrain.recipes.curation.voting import voted_rows
from finegrain.recipes.quiet import quiet_transformers
from finegrain.runs import check_free


def run_curate(settings: CurateSettings) -> dict[str, Any]:
    """Write rows and summary, complete or not at all; returns the summary."""
    check_one(settings.data)
    check_free(settings.out, settings.data)
    check_free(settings.summary, settings.data)
    for name in (EASY, HARD) if isinstance(settings.method, MPO) else ():
        check_free(settings.part(name), settings.data)
    quiet_transformers()
    method = settings.method
    return tree_pairs(settings, method) if isinstance(method, TreeRM) else voted_rows(settings, method)
