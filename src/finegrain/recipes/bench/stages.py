"""The three stages: every row tuned by the same trials, all rows screened, the survivors measured at several numbers of pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from finegrain.recipes.bench.cell import Cell, Measure, Trial
from finegrain.recipes.bench.rows import BenchRow
from finegrain.types import Json


@dataclass(frozen=True)
class BenchStages:
    """Trials, numbers of pairs and seeds."""

    rates: tuple[float, ...]
    betas: tuple[float, ...]
    widenings: int
    """How often the grid may grow."""
    pairs: int
    """At which rows are tuned and screened."""
    tuning_seeds: tuple[int, ...]
    """None of them is reported."""
    screening_seeds: tuple[int, ...]
    kept: int
    """Best rows that are measured further, beside the best use of whole answers and the baselines."""
    final_pairs: tuple[int, ...]
    final_seeds: tuple[int, ...]


class Tuned(NamedTuple):
    """The chosen trial of every row, and the grid."""

    trials: dict[str, Trial]
    rates: tuple[float, ...]
    betas: tuple[float, ...]
    at_edge: list[str]
    """Rows whose best trial is at the edge of the last grid."""


def goodness(results: Sequence[Json]) -> float:
    """The mean quality over distances and seeds, by which trials and rows are chosen [choice]; minus infinity where one was refused."""
    values = [value for result in results for value in result["quality"].values()]
    return -np.inf if not values or None in values else float(np.mean(values))


def tune_rows(rows: Sequence[BenchRow], stages: BenchStages, measure: Measure) -> Tuned:
    """The best trial of every row.

    An axis on whose edge the best trial of any row lies grows there by a factor of two, for every row, so that all rows have the same trials.
    """
    rates, betas = tuple(sorted(stages.rates)), tuple(sorted(stages.betas))
    for widening in range(stages.widenings + 1):
        best = _best_trials(rows, [Trial(rate, beta) for rate in rates for beta in betas], stages, measure)
        wider = _widened(rates, [trial.rate for trial in best.values()]), _widened(betas, [trial.beta for trial in best.values()])
        if wider == (rates, betas) or widening == stages.widenings:
            break
        rates, betas = wider
    at_edge = [name for name, trial in best.items() if (rates, betas) != (_widened(rates, [trial.rate]), _widened(betas, [trial.beta]))]
    return Tuned(best, rates, betas, at_edge)


def _widened(values: tuple[float, ...], best: Sequence[float]) -> tuple[float, ...]:
    below = (values[0] / 2,) if values[0] in best else ()
    above = (values[-1] * 2,) if values[-1] in best else ()
    return (*below, *values, *above)


def _best_trials(rows: Sequence[BenchRow], trials: Sequence[Trial], stages: BenchStages, measure: Measure) -> dict[str, Trial]:
    cells = {
        (row.name, trial): [Cell(row.name, stages.pairs, seed, trial, whole=False) for seed in stages.tuning_seeds]
        for row in rows
        for trial in trials
    }
    found = iter(measure([cell for own in cells.values() for cell in own]))
    good = {key: goodness([next(found) for _ in own]) for key, own in cells.items()}
    return {row.name: max(trials, key=lambda trial: good[row.name, trial]) for row in rows}


def measure_rows(rows: Sequence[BenchRow], trials: Mapping[str, Trial], pairs: int, seeds: Sequence[int], measure: Measure) -> dict[str, list[Json]]:
    """By row, the results of its seeds."""
    found = iter(measure([Cell(row.name, pairs, seed, trials[row.name]) for row in rows for seed in seeds]))
    return {row.name: [next(found) for _ in seeds] for row in rows}


def halve(rows: Sequence[BenchRow], screened: Mapping[str, Sequence[Json]], kept: int) -> list[BenchRow]:
    """Rows without a scorer, the best uses of it, and the best use of whole answers, in the order of the table."""
    uses = sorted((row for row in rows if row.use), key=lambda row: -goodness(screened[row.name]))
    chosen = {row.name for row in [*uses[:kept], *[row for row in uses if row.level == "answer"][:1]]}
    return [row for row in rows if not row.use or row.name in chosen]
