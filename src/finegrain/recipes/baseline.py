"""`finegrain score baseline`: scores of the answers of a fixed sampler, prompt by prompt, for `finegrain score --baseline`."""

from typing import Any

from finegrain.commands.baseline import BaselineSettings
from finegrain.files import write_new
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.score_files.baseline_scores import BaselineCounts, score_baseline
from finegrain.recipes.score_files.baseline_table import BaselineTable, table_lines
from finegrain.runs import check_free


def run_baseline(settings: BaselineSettings) -> dict[str, Any]:
    """Write the table, complete or not at all; returns the counts."""
    check_free(settings.out, settings.data)
    quiet_transformers()
    counts = BaselineCounts()
    table = BaselineTable(*score_baseline(settings, counts))
    write_new(settings.out, table_lines(table))
    return {"out": str(settings.out), "prompts": len(table.scores), **counts.as_json(), **table.spread()}
