"""`finegrain eval compare`: agreement between rewards that scored the same answers, between seeds of one reward, and with a null control."""

import json
from typing import Any

from finegrain.commands.compare import CompareSettings
from finegrain.files import write_new
from finegrain.recipes.evaluation.comparison import compare_scores
from finegrain.recipes.evaluation.comparison_table import print_comparison
from finegrain.runs import check_free


def run_compare(settings: CompareSettings) -> dict[str, Any]:
    """Print a table on stderr; returns its numbers, which also go to --out."""
    if settings.out is not None:
        check_free(settings.out)
    result = compare_scores(settings)
    print_comparison(result)
    if settings.out is not None:
        write_new(settings.out, [json.dumps(result, allow_nan=False) + "\n"])
    return {**result, "out": None if settings.out is None else str(settings.out)}
