"""What a run reads and what it trains: rows drawn by a column, a second stream of rows, parameters chosen by their names."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from torch import nn

from finegrain.commands.settings import Training
from finegrain.data.columns import list_names
from finegrain.data.load import LoadedData
from finegrain.data.store import ExampleStore
from finegrain.errors import DataError, UsageError
from finegrain.recipes.session import Session
from finegrain.train.batches import Plan
from finegrain.types import Json


def find_second(loaded: LoadedData, train: ExampleStore, training: Training) -> np.ndarray | None:
    """(N,) True for the training rows of the second stream; None where there is none."""
    if not training.second_share:
        return None
    if len(loaded.sources) < 2:
        raise UsageError('--second-share takes a share of every step from the last source of --data, and there is one; give --data "A + B"')
    if training.batch_size < 2:
        raise UsageError("--second-share needs steps of at least two rows; raise --batch-size")
    second = np.isin(train.row_numbers, loaded.examples.row_numbers[loaded.from_last])
    if second.all() or not second.any():
        raise DataError(f"--second-share: {loaded.sources[-1]} gives {int(second.sum())} of {len(second)} training rows; both streams need some")
    return second


def find_chance(name: str, numbers: Mapping[str, np.ndarray], second: np.ndarray | None) -> np.ndarray:
    """(N,) how often a row is drawn; raises DataError for a column that cannot say it."""
    if name not in numbers:
        raise DataError(f"rows are to be drawn by the column {name}, which not every row has; numbers found: {list_names(numbers) or 'none'}")
    chance = np.asarray(numbers[name], dtype=np.float64)
    if not np.isfinite(chance).all() or (chance < 0).any():
        raise DataError(f"rows are drawn in proportion to the column {name}, which must be finite and not negative in every row")
    if not chance[slice(None) if second is None else ~second].any():
        raise DataError(f"rows are drawn in proportion to the column {name}, which is 0 in all of them")
    return chance


def describe_reading(session: Session, plan: Plan, by: str | None) -> Json:
    """For run.json, and said: {} where every row is read once an epoch."""
    if plan.chance is None and plan.second is None:
        return {}
    counted = Counter(int(row) for index in range(len(plan)) for row in plan.rows(index))
    facts: Json = {"rows_read": len(counted), "most_often": max(counted.values(), default=0)}
    words = []
    if plan.chance is not None:
        facts |= {"by": by, "without_a_chance": int((plan.chance == 0).sum())}
        words.append(f"rows are drawn by {by}, {facts['without_a_chance']} of {len(plan.chance)} never")
    if plan.second is not None:
        facts |= {"second_rows": int(plan.second.sum()), "second_rows_of_a_step": plan.second_rows, "rows_of_a_step": plan.batch_size}
        words.append(f"{plan.second_rows} of {plan.batch_size} rows of every step come from the second stream of {facts['second_rows']} rows")
    session.say(f"rows: {'; '.join(words)}; {len(counted)} rows are read, the most frequent one {facts['most_often']} times")
    return {"reading": facts}


def train_only(session: Session, pattern: str | None) -> Json:
    """Freeze the parameters whose names the pattern does not find; what it found, for run.json, and said."""
    if pattern is None:
        return {}
    named = {name: one for name, one in session.policy.model.named_parameters() if one.requires_grad}
    try:
        found = [name for name in named if re.search(pattern, name)]
    except re.error as error:
        raise UsageError(f"--train-only {pattern!r} is no regular expression: {error}") from error
    if not found:
        raise UsageError(f"--train-only {pattern!r} finds none of {len(named)} names of trainable parameters, such as {list_names(list(named)[:3])}")
    for name in named.keys() - set(found):
        named[name].requires_grad_(False)
    numbers, whole = (_count(named[name] for name in names) for names in (found, named))
    session.say(f"--train-only {pattern!r}: {len(found)} of {len(named)} tensors match, {numbers} of {whole} numbers train")
    return {"train_only": {"pattern": pattern, "tensors": len(found), "of_tensors": len(named), "numbers": numbers, "of_numbers": whole}}


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
