"""A scorer made of the run's own pairs: two plain DPO fits of the start model, each on half of the rows.

A fit visits its half as often as the run visits the pairs. Each row's token rewards come from the fit that has not seen it; the
other fit is kept as a second member, so that their disagreement gives a first uncertainty. The columns are cached by model, tokens
and settings, and their cost counts in the run.
"""

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch

from finegrain.data.records import Example
from finegrain.errors import CreditError
from finegrain.models.fingerprint import model_fingerprint
from finegrain.models.score import cache_key, read_ragged, score_rows, write_ragged
from finegrain.models.scorer import Scorer
from finegrain.objectives.dpo import DPO
from finegrain.recipes.setup.metrics import metrics_for
from finegrain.recipes.setup.session import Session, hidden_size
from finegrain.train.batches import Plan
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import contract_of
from finegrain.train.distributed import barrier, rank, world
from finegrain.train.loop import Trainer
from finegrain.train.optim import Optim, make_optimizer, scaled_default
from finegrain.train.run import fit
from finegrain.types import Ragged, Scored

RATE_FACTOR = 5.0
"""[choice] The fits move this many times faster than DPO's default rate: a scorer need not stay near the reference."""

ROLES = ("chosen", "rejected")


def cross_fitted(
    session: Session, examples: Sequence[Example], roles: tuple[str, ...], reference: Mapping[str, Ragged], beta: float
) -> dict[str, list[Scored]]:
    """Token rewards of every row: mean from the fit that has not seen it, members from both."""
    if set(roles) != set(ROLES):
        raise CreditError(
            f"a run makes its own scorer from pairs only, and this one trains on {', '.join(roles)}; give --credit.scorer, spans or a column"
        )
    if len(examples) < 4:
        raise CreditError(f"{len(examples)} pairs are too few to fit a scorer on each half; give --credit.scorer")
    started = time.perf_counter()
    rate = RATE_FACTOR * scaled_default(DPO.learning_rate, hidden_size(session))
    halves = np.random.default_rng([session.common.seed, 2]).permutation(len(examples)) % 2
    settings = {
        "rate": rate,
        "batch_size": session.training.batch_size,
        "epochs": session.training.epochs,
        "max_steps": session.common.max_steps,
        "seed": session.common.seed,
        "optim": asdict(Optim()),
    }
    arithmetic = f"{session.how.name} {json.dumps(settings, sort_keys=True)}"
    key = cache_key(model_fingerprint(session.policy, session.cache.folder), examples, ROLES, arithmetic)
    file = session.cache.folder / "cross-fit" / f"{key}.safetensors"
    stored = read_ragged(file)
    if stored is not None:
        session.say("credit: token rewards of the run's own scorer read from the cache")
        session.work.notes.append("cross-fit: read from the cache")
    else:
        logps = [_fit_and_score(session, examples, reference, np.flatnonzero(halves == half), rate, half) for half in (0, 1)]
        stored = {f"{role}.{half}": logps[half][role] for half in (0, 1) for role in ROLES}
        if rank() == 0:
            write_ragged(file, stored)
        barrier()
    session.notes["cross_fit"] = {**settings, "seconds": round(time.perf_counter() - started, 3)}
    return {role: [_scored(stored, role, row, int(halves[row]), reference, beta) for row in range(len(examples))] for role in ROLES}


def _fit_and_score(
    session: Session, examples: Sequence[Example], reference: Mapping[str, Ragged], rows: np.ndarray, rate: float, half: int
) -> dict[str, Ragged]:
    """Log-probabilities of all rows under a plain DPO fit on some of them."""
    assert session.scorer is not None
    scorer = Scorer(copy.deepcopy(session.policy.model), session.scorer.path)
    objective = DPO()
    data = TrainingSet([examples[row] for row in rows], {role: [reference[role][row] for row in rows] for role in ROLES})
    training, common = session.training, session.common
    plan = Plan(data.packed_tokens(ROLES), training.batch_size, training.epochs, common.seed, training.micro_tokens, world(), common.max_steps)
    parameters = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    trainer = Trainer(
        scorer=scorer,
        contract=contract_of(objective),
        data=data,
        optimizer=make_optimizer(parameters, [], Optim(), rate),
        optim=Optim(),
        how=session.how,
        metrics=metrics_for(objective),
        peak_rate=rate,
        steps=len(plan),
    )
    last: dict[str, float] = {}
    fit(trainer, plan, last.update)
    session.say(f"credit: own scorer {half + 1} of 2, {len(plan)} steps on {len(rows)} pairs, margin {last.get('rewards/margins', float('nan')):.3f}")
    session.work.notes.append(f"cross-fit {half + 1}: {len(plan)} optimiser steps on {len(rows)} pairs")
    session.work.rows += len(rows) + len(examples)
    session.work.tokens += int(data.packed_tokens(ROLES).sum()) + int(TrainingSet(examples).packed_tokens(ROLES).sum())
    return score_rows(scorer, examples, ROLES, session.how)


def _scored(stored: Mapping[str, Ragged], role: str, row: int, half: int, reference: Mapping[str, Ragged], beta: float) -> Scored:
    members = [torch.from_numpy(beta * (stored[f"{role}.{fit_on}"][row] - reference[role][row])) for fit_on in (0, 1)]
    return Scored(members[1 - half], None, torch.stack(members))
