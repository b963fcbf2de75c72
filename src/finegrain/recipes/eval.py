"""`finegrain eval`: accuracy of a reward with intervals, beside baselines that read only length or words."""

import json
from pathlib import Path
from typing import Any, Literal

from finegrain.commands.eval import EvalSettings
from finegrain.commands.settings import DType
from finegrain.evaluate.accuracy import TieLoses, TieRule
from finegrain.evaluate.ensemble import Combiner, MemberMean
from finegrain.files import write_new
from finegrain.ops.aggregate import MeanReward, OfOneAnswer
from finegrain.recipes.evaluation.report import measure
from finegrain.recipes.evaluation.table import print_table
from finegrain.recipes.quiet import quiet_transformers
from finegrain.runs import check_free


def evaluate_reward(
    reward: str | Path | list[str | Path],
    data: str | Path,
    *,
    reference: str | Path | None = None,
    reference_free: Literal["norm", "avg", "sum"] | None = None,
    out: str | Path | None = None,
    beta: float = 0.1,
    aggregate: OfOneAnswer | None = None,
    ties: TieRule | None = None,
    combiner: Combiner | None = None,
    limit: int | None = None,
    max_length: int = 2048,
    device: str = "auto",
    dtype: DType = "auto",
) -> dict[str, Any]:
    """Test a reward; arguments as the settings of `finegrain eval`, result as its last line on stdout."""
    rewards = reward if isinstance(reward, list) else [reward]
    return run_eval(
        EvalSettings(
            reward=tuple(str(one) for one in rewards),
            reference=None if reference is None else str(reference),
            reference_free=reference_free,
            data=str(data),
            out=None if out is None else Path(out),
            beta=beta,
            aggregate=aggregate or MeanReward(),
            ties=ties or TieLoses(),
            combiner=combiner or MemberMean(),
            limit=limit,
            max_length=max_length,
            device=device,
            dtype=dtype,
        )
    )


def run_eval(settings: EvalSettings) -> dict[str, Any]:
    """Print a table on stderr; returns its numbers, which go to --out together with the scores."""
    if settings.out is not None:
        check_free(settings.out, settings.data)
    quiet_transformers()
    result, scores = measure(settings)
    print_table(result)
    if settings.out is not None:
        write_new(settings.out, [json.dumps({**result, "scores": scores}, ensure_ascii=False, allow_nan=False) + "\n"])
    return {**result, "out": None if settings.out is None else str(settings.out)}
