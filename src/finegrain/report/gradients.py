"""gradients.jsonl as the report reads it: measured pairs by step, and one pair token by token."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finegrain.diagnose.entanglement import Drift
from finegrain.errors import CheckpointError
from finegrain.ops.gradients import GradientPair
from finegrain.train.entanglement import MeasuredPair, TokenMap
from finegrain.types import Json


@dataclass(frozen=True)
class GradientFindings:
    """What was measured of the gradients of single pairs."""

    objective: str
    """Name of the objective whose steps they are."""
    steps: Sequence[int]
    """Step of every pair; 0 where nothing was trained."""
    pairs: Sequence[MeasuredPair]
    tokens: TokenMap | None
    """One pair token by token, measured at the first step."""


def read_gradients(lines: Iterable[Json], source: str) -> GradientFindings | None:
    """The findings of the lines of `source`; None without any pair whose numbers are finite."""
    steps, pairs, tokens, objective = [], [], None, ""
    for number, line in enumerate(lines, 1):
        try:
            objective = str(line["objective"])
            if "tokens" in line:
                tokens = _token_map(line["tokens"])
                continue
            pair = _measured(line)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise CheckpointError(
                f"{source}:{number} is not a measured pair ({type(error).__name__}: {error}); remove the file for a report without gradients"
            ) from error
        if np.isfinite([*pair.gradients, *pair.predicted, *(pair.observed or ())]).all():
            steps.append(int(line["step"]))
            pairs.append(pair)
    return GradientFindings(objective, steps, pairs, tokens) if pairs else None


def _measured(line: Json) -> MeasuredPair:
    up, down = map(float, line["slopes"])
    observed = _drift(line["observed"]) if "observed" in line else None
    return MeasuredPair(int(line["row"]), GradientPair(*map(float, line["gradients"])), up, down, _drift(line["predicted"]), observed)


def _drift(values: Any) -> Drift:
    return Drift(*map(float, values))


def _token_map(line: Json) -> TokenMap:
    chosen, rejected = (tuple(map(str, line[name])) for name in ("chosen", "rejected"))
    gram, cosines = (np.array(line[name], dtype=np.float64).reshape(len(chosen), len(rejected)) for name in ("gram", "cosines"))
    return TokenMap(int(line["row"]), chosen, rejected, gram, cosines, bool(line["cut"]))
