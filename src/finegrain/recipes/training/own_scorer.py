"""A scorer made of the run's own pairs: two plain DPO fits of the start model, each on half of the rows.

A fit visits its half as often as the run visits the pairs. Each row's token rewards come from the fit that has not seen it; the
other fit is kept as a second member, so that their disagreement gives a first uncertainty. The columns are cached by model, tokens
and settings, and their cost counts in the run.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from finegrain.commands.settings import Common, Training
from finegrain.data.records import Example
from finegrain.errors import CreditError
from finegrain.models.fingerprint import code_fingerprint, describe_precision, model_fingerprint, trained_fingerprint
from finegrain.models.reference import get_tolerance
from finegrain.models.score import cache_key, read_ragged, score_rows
from finegrain.models.scorer import Scorer
from finegrain.objectives.dpo import DPO
from finegrain.recipes.session import Session, hidden_size
from finegrain.train.collate import TrainingSet
from finegrain.train.distributed import any_rank, barrier, rank, world
from finegrain.train.fit import Fit, FitSettings, Line, fit
from finegrain.train.optim import scaled_default
from finegrain.types import Json, Ragged, Scored

RATE_FACTOR = 5.0
"""[choice] The fits move this many times faster than DPO's default rate: a scorer need not stay near the reference."""

ROLES = ("chosen", "rejected")
KIND = "cross-fit"
"""Name of the cached values, and of their folder."""
START, SAMPLE = 2, 4
"""Steps and rows that are computed again when cached values are read: a fit is too dear to repeat, its start is not."""


def fit_settings(session: Session, training: Training, common: Common) -> FitSettings:
    """Of a fit on half of the rows, in as many passes as the run makes over the pairs."""
    rate = RATE_FACTOR * scaled_default(DPO.learning_rate, hidden_size(session))
    return FitSettings(rate=rate, batch_size=training.batch_size, epochs=training.epochs, max_steps=common.max_steps, seed=common.seed)


def cross_fit(
    session: Session, examples: Sequence[Example], roles: tuple[str, ...], reference: Mapping[str, Ragged], settings: FitSettings, beta: float
) -> tuple[dict[str, list[Scored]], Json]:
    """Token rewards of every row, mean from the fit that has not seen it, members from both; and settings and seconds for run.json."""
    if set(roles) != set(ROLES):
        raise CreditError(
            f"a run makes its own scorer from pairs only, and this one trains on {', '.join(roles)}; give --credit.scorer, spans or a column"
        )
    if len(examples) < 4:
        raise CreditError(f"{len(examples)} pairs are too few to fit a scorer on each half; give --credit.scorer")
    started = time.perf_counter()
    halves = np.random.default_rng([settings.seed, 2]).permutation(len(examples)) % 2
    file = session.cache.folder / KIND / f"{_key(session, examples, settings)}.safetensors"
    fits = [_Fit(session, examples, reference, np.flatnonzero(halves == half), settings, half) for half in (0, 1)]
    stored = read_ragged(file)
    if stored is not None and _agrees(session, stored, fits, examples):
        session.say("credit: token rewards of the run's own scorer read from the cache")
        session.usage.notes.append(f"{KIND}: read from the cache, a sample of the fit's start made again and equal")
    else:
        if any_rank(os.path.lexists(file), session.device):
            session.cache.tell(session.usage, f"{KIND}: the cached values are damaged or not this run's; computed again")
        stored = fits[0].columns() | fits[1].columns()
        if rank() == 0:
            replace(session.cache, kind=KIND).keep(file, stored, session.usage)
        barrier()
    found = {role: [_scored(stored, role, row, int(halves[row]), reference, beta) for row in range(len(examples))] for role in ROLES}
    return found, {**asdict(settings), "seconds": round(time.perf_counter() - started, 3)}


def _key(session: Session, examples: Sequence[Example], settings: FitSettings) -> str:
    """What the fits depend on: the model and what of it trains, the rows, the settings, the arithmetic and the code."""
    model = session.policy.model
    facts = {
        **asdict(settings),
        "objective": asdict(DPO()),
        "trained": trained_fingerprint(model),
        "stored_as": describe_precision(model),
        "code": code_fingerprint("models", "ops", "train", "objectives", "recipes/training"),
        "processes": world(),
    }
    return cache_key(
        model_fingerprint(session.policy, session.cache.folder), examples, ROLES, f"{session.precision.name} {json.dumps(facts, sort_keys=True)}"
    )


def _agrees(session: Session, stored: Mapping[str, Ragged], fits: Sequence["_Fit"], examples: Sequence[Example]) -> bool:
    """Whether the start of a fit, taken again, gives the values that were stored of it; all processes decide alike."""
    names = {f"{role}.{half}": examples for half in (0, 1) for role in ROLES} | {f"start.{role}": fits[0].sample for role in ROLES}
    whole = stored.keys() == names.keys() and all(
        [len(values) for values in stored[name]] == [len(row.responses[_role(name)].ids) for row in rows] for name, rows in names.items()
    )
    if any_rank(not whole, session.device):
        return False
    again = fits[0].start()
    near = all(
        one.dtype == other.dtype and np.allclose(one, other, atol=get_tolerance(session.precision), rtol=0)
        for role in ROLES
        for one, other in zip(stored[f"start.{role}"], again[role], strict=True)
    )
    return not any_rank(not near, session.device)


def _role(name: str) -> str:
    """`chosen.0`, `start.chosen` -> `chosen`."""
    return next(role for role in ROLES if role in name)


@dataclass(frozen=True)
class _Fit:
    """A plain DPO fit of the start model on some of the rows."""

    session: Session
    examples: Sequence[Example]
    reference: Mapping[str, Ragged]
    rows: np.ndarray
    settings: FitSettings
    half: int

    @property
    def sample(self) -> list[Example]:
        """Rows whose values after the fit's first steps are stored, to be compared when the cache is read."""
        return [self.examples[int(row)] for row in self.rows[:SAMPLE]]

    def start(self) -> dict[str, Ragged]:
        """Log-probabilities of the sample after the first steps."""
        return score_rows(self._fitted(stop_after=START).scorer, self.sample, ROLES, self.session.precision)

    def columns(self) -> dict[str, Ragged]:
        """Log-probabilities of all rows under the finished fit, and of the sample after the first steps of the first fit."""
        session, count = self.session, len(self.rows)
        started: dict[str, Ragged] = {}

        def watch(scorer: Scorer, line: Line) -> None:
            if self.half == 0 and line["step"] <= START:  # the last of these steps stands: a fit may have fewer
                started.update(score_rows(scorer, self.sample, ROLES, session.precision))

        fitted = self._fitted(watch=watch)
        margin = fitted.lines[-1].get("rewards/margins", float("nan")) if fitted.lines else float("nan")
        session.say(f"credit: own scorer {self.half + 1} of 2, {len(fitted.lines)} steps on {count} pairs, margin {margin:.3f}")
        session.usage.notes.append(f"{KIND} {self.half + 1}: {len(fitted.lines)} optimiser steps on {count} pairs")
        session.usage.rows += count + len(self.examples)
        session.usage.tokens += fitted.tokens + int(TrainingSet(self.examples).packed_tokens(ROLES).sum())
        scored = score_rows(fitted.scorer, self.examples, ROLES, session.precision)
        return {f"start.{role}": values for role, values in started.items()} | {f"{role}.{self.half}": scored[role] for role in ROLES}

    def _fitted(self, watch: Callable[[Scorer, Line], None] = lambda scorer, line: None, stop_after: int | None = None) -> Fit:
        """A copy of the start model, trained on these rows."""
        session = self.session
        assert session.scorer is not None
        data = TrainingSet([self.examples[row] for row in self.rows], {role: [self.reference[role][row] for row in self.rows] for role in ROLES})
        start = Scorer(session.policy.model, session.scorer.path)
        return fit(start, data, DPO(), self.settings, session.precision, watch=watch, stop_after=stop_after)


def _scored(stored: Mapping[str, Ragged], role: str, row: int, half: int, reference: Mapping[str, Ragged], beta: float) -> Scored:
    members = [torch.from_numpy(beta * (stored[f"{role}.{fit_on}"][row] - reference[role][row])) for fit_on in (0, 1)]
    return Scored(members[1 - half], None, torch.stack(members))
