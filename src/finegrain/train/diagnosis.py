"""Gradient entanglement while training: before a step the gradients of some of its pairs, after it what became of their log-probabilities."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from finegrain.diagnose.entanglement import IDEAL, STILL, Drift, name_case, sign_of
from finegrain.train.batches import Step
from finegrain.train.collate import collate
from finegrain.train.distributed import rank
from finegrain.train.entanglement import MOST_TOKENS, ROLES, MeasuredPair, measure_pair, measure_tokens, most_entangled, sequence_logps
from finegrain.train.evaluation import measuring, without_noise
from finegrain.train.loop import Trainer, step_statistics
from finegrain.types import Json, Pair

MOST_PAIRS = 8
"""Of a step, its first ones: they are in random order."""
COST = (
    f"takes, for each of up to {MOST_PAIRS} pairs, two forward and two or three backward passes, and memory for three gradients; "
    f"the first time also a backward pass for each of the first {MOST_TOKENS} tokens of two answers, or several where few gradients fit in memory"
)
"""Of one measurement, in words that the run says."""


@dataclass(frozen=True)
class Measured:
    """The pairs of a step before it is taken; empty on other ranks than the first."""

    step: Step
    statistics: Mapping[str, Tensor]
    pairs: list[MeasuredPair]
    logps: list[list[Tensor]]
    """By pair, both answers' log-probabilities before the step."""
    seconds: float


@dataclass(frozen=True)
class Diagnosis:
    """Measures the first step and every `every`-th one after it; it changes nothing of the training."""

    every: int
    objective: str
    """Name in the report."""
    write: Callable[[Json], None]
    """Keeps a line."""

    def measure(self, trainer: Trainer, step: Step) -> Measured | None:
        """Before the step; None where it is not due. Every rank calls it, for statistics of the step are of all ranks."""
        if step.index % self.every:
            return None
        with without_noise(trainer):
            return self._measure(trainer, step)

    def _measure(self, trainer: Trainer, step: Step) -> Measured:
        started = time.perf_counter()
        statistics = step_statistics(trainer, step)
        if rank():
            return Measured(step, statistics, [], [], 0.0)
        parameters, pairs, logps = trainer.parameters(), list[MeasuredPair](), list[list[Tensor]]()
        for place in step.rows[:MOST_PAIRS]:
            pair = one_pair(trainer, place, statistics)
            found, _ = measure_pair(trainer.contract, pair, parameters, trainer.data.examples[place].row)
            pairs.append(found)
            logps.append([score.detach() for score in sequence_logps(pair)])
        if step.index == 0:
            place = step.rows[most_entangled(pairs)]
            tokens = measure_tokens(trainer.data.examples[place], one_pair(trainer, place, statistics), parameters)
            self.write({"step": 1, "objective": self.objective, "tokens": tokens.as_json()})
        return Measured(step, statistics, pairs, logps, time.perf_counter() - started)

    def compare(self, trainer: Trainer, measured: Measured) -> dict[str, float]:
        """After the step: numbers for its line, on the first rank."""
        if rank():
            return {}
        started, pairs = time.perf_counter(), []
        with measuring(trainer):
            for place, pair, before in zip(measured.step.rows, measured.pairs, measured.logps, strict=False):
                after = sequence_logps(one_pair(trainer, place, measured.statistics))
                observed = Drift(*(float(now - then) for now, then in zip(after, before, strict=True)))
                pairs.append(replace(pair, observed=observed))
        for pair in pairs:
            self.write({"step": measured.step.index + 1, "objective": self.objective, **pair.as_json()})
        return {**summarise(pairs), "diagnose_seconds": round(measured.seconds + time.perf_counter() - started, 4)}


def one_pair(trainer: Trainer, place: int, statistics: Mapping[str, Tensor]) -> Pair:
    """A row alone, with the policy's values as they are now."""
    batch = collate(trainer.data, [place], trainer.contract.roles, positions=[0], device=trainer.scorer.device)
    return trainer.pair(batch, statistics, scored=True)


def summarise(pairs: list[MeasuredPair]) -> dict[str, float]:
    """Means and shares over pairs, by logged name; a share of nothing is left out."""
    cosine = sum(pair.gradients.cosine for pair in pairs) / len(pairs)
    found = {"gradients/cosine": cosine}
    moving = [name_case(pair.predicted) for pair in pairs if name_case(pair.predicted) != STILL]
    if moving:
        found["gradients/as_wanted"] = moving.count(IDEAL) / len(moving)
    for side, role in enumerate(ROLES):
        known = [(pair.predicted[side], pair.observed[side]) for pair in pairs if pair.observed is not None and pair.predicted[side]]
        if known:
            found[f"gradients/came_true_{role}"] = sum(sign_of(guess) == sign_of(seen) for guess, seen in known) / len(known)
    return found
