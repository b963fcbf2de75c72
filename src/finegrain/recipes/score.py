"""`finegrain score`: scores given answers by any reward, token by token where it is dense, as character offsets."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finegrain.commands.score import ScoreSettings
from finegrain.commands.settings import DType
from finegrain.credit.reward_signals import Head, RewardSignal
from finegrain.files import write_new
from finegrain.ops.aggregate import MeanReward, OfOneAnswer
from finegrain.ops.baseline import Contrast, Difference
from finegrain.ops.segmenters import Dynamic, Segmenter
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.score_files.score_lines import ScoreCounts, score_lines
from finegrain.runs import check_free
from finegrain.types import Json


def score(
    data: str | Path,
    out: str | Path,
    *,
    model: str | Path | Sequence[str | Path] = (),
    reference: str | Path | None = None,
    reward: str | None = None,
    beta: float = 0.1,
    signal: RewardSignal | None = None,
    aggregate: OfOneAnswer | None = None,
    segmenter: Segmenter | None = None,
    baseline: str | Path | None = None,
    contrast: Contrast | None = None,
    normalise: bool = False,
    id: str | None = None,
    limit: int | None = None,
    max_length: int = 1024,
    device: str = "auto",
    dtype: DType = "auto",
) -> dict[str, Any]:
    """Score answers; arguments as the settings of `finegrain score`, result as its last line on stdout."""
    models = (model,) if isinstance(model, (str, Path)) else model
    return run_score(
        ScoreSettings(
            model=tuple(str(one) for one in models),
            reference=None if reference is None else str(reference),
            reward=reward,
            data=str(data),
            out=Path(out),
            beta=beta,
            signal=signal or Head(),
            aggregate=aggregate or MeanReward(),
            segmenter=segmenter or Dynamic(),
            baseline=None if baseline is None else Path(baseline),
            contrast=contrast or Difference(),
            normalise=normalise,
            id=id,
            limit=limit,
            max_length=max_length,
            device=device,
            dtype=dtype,
        )
    )


def run_score(settings: ScoreSettings) -> dict[str, Any]:
    """Write the score lines, complete or not at all; returns the counts."""
    check_free(settings.out, settings.data)
    quiet_transformers()
    counts = ScoreCounts()
    write_new(settings.out, _to_text(score_lines(settings, counts)))
    for warning in counts.warnings():
        counts.say(warning)
    return {"out": str(settings.out), **counts.as_json()}


def _to_text(lines: Iterator[Json]) -> Iterator[str]:
    return (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
