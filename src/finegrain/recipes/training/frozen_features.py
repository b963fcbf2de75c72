"""Train a head alone on what the frozen model made of every answer's last token: computed once, cached, read in place of the model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from finegrain.data.records import Example, Response
from finegrain.models.features import compute_last_features
from finegrain.models.packing import Group
from finegrain.models.score import Precision, PromptWithAnswers
from finegrain.models.scorer import Request, Scorer, head_outputs
from finegrain.ops.logprobs import TokenValues
from finegrain.recipes.session import Session
from finegrain.scoring.tokens import LazySequence
from finegrain.train.batches import Plan
from finegrain.train.collate import TrainingSet
from finegrain.train.loop import Trainer
from finegrain.types import Ragged

PROMPT = np.zeros(1, dtype=np.int32)
NOWHERE = np.zeros((1, 2), dtype=np.int32)


def cut_to_one_token(examples: Sequence[Example], roles: tuple[str, ...]) -> Sequence[Example]:
    """The rows with every answer cut down to one token, whose id is the place of its features."""

    def cut(row: int) -> Example:
        example, start = examples[row], row * len(roles)
        answers = {role: _one_token(example.responses[role], start + place) for place, role in enumerate(roles)}
        return replace(example, prompt=PROMPT, responses=answers)

    return LazySequence(len(examples), cut)


def _one_token(response: Response, place: int) -> Response:
    return Response(np.array([place], dtype=np.int32), np.array([bool(response.mask.any())]), NOWHERE, response.text)


@dataclass(frozen=True)
class FeaturePath:
    """A scorer's path that looks features up instead of computing them."""

    features: Mapping[int, np.ndarray]
    """(H,) by place."""

    def __call__(self, model: Any, groups: Sequence[Group], request: Request) -> TokenValues:
        """The head's outputs at every answer's features."""
        assert request.outputs is not None, "only a head can read features"
        device = next(model.parameters()).device
        places = [int(branch.ids[0]) for group in groups for branch in group.branches if branch.mask[0]]
        if not places:
            parameter = next(request.outputs.parameters())
            stacked = torch.zeros(0, next(iter(self.features.values())).shape[0], dtype=parameter.dtype, device=device)
        else:
            stacked = torch.from_numpy(np.stack([self.features[place] for place in places])).to(device)
        return TokenValues(torch.zeros(len(places), dtype=stacked.dtype, device=device), outputs=head_outputs(request.outputs, stacked))


def feature_rows(scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> dict[str, Ragged]:
    """`compute_last_features` as the cache keeps them: one (H,) array per answer."""
    return (
        {role: list(rows) for role, rows in compute_last_features(scorer, examples, roles, precision).items()}
        if len(examples)
        else {role: [] for role in roles}
    )


@contextmanager
def on_features(session: Session, trainer: Trainer, plan: Plan) -> Iterator[tuple[Trainer, Plan]]:
    """(trainer, plan) that read features where the objective asks for it, both unchanged otherwise; the scorer computes again afterwards."""
    if not trainer.contract.frozen:
        yield trainer, plan
        return
    data, roles, scorer = trainer.data, trainer.contract.roles, trainer.scorer
    visited = plan.visited()
    cache = replace(session.cache, kind="features", measure=feature_rows)
    rows = data.examples.take(visited) if hasattr(data.examples, "take") else [data.examples[row] for row in visited]
    found = cache.values(session.policy, scorer, rows, roles, session.precision, session.usage)
    features = {int(row) * len(roles) + place: np.array(found[role][index]) for place, role in enumerate(roles) for index, row in enumerate(visited)}
    short = TrainingSet(cut_to_one_token(data.examples, roles), columns=data.columns, categories=data.categories)
    own, scorer.path = scorer.path, FeaturePath(features)
    try:
        yield replace(trainer, data=short), replace(plan, tokens=np.full(len(plan.tokens), 1 + len(roles)))
    finally:
        scorer.path = own
