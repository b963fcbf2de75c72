"""Train a head alone on what the frozen model made of every answer, or of its last token: computed once, cached, read in place of the model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from finegrain.data.records import Example, Response
from finegrain.data.store import token_lengths
from finegrain.models.features import compute_last_features
from finegrain.models.packing import Branch, Group
from finegrain.models.score import Precision, PromptWithAnswers, compute_token_features
from finegrain.models.scorer import Request, Scorer, head_outputs
from finegrain.ops.logprobs import TokenValues
from finegrain.recipes.session import Session, hidden_size
from finegrain.scoring.tokens import LazySequence
from finegrain.train.batches import Plan
from finegrain.train.loop import Trainer
from finegrain.types import Ragged

PROMPT = np.zeros(1, dtype=np.int32)
NOWHERE = np.zeros((1, 2), dtype=np.int32)
MOST_BYTES = 2**31
"""Of features of all tokens, which are kept in memory [choice]."""


def stand_ins(examples: Sequence[Example], roles: tuple[str, ...], starts: np.ndarray, *, whole: bool) -> Sequence[Example]:
    """The rows without their prompts, each token's id the place of its features; `whole`: all tokens of an answer, else the last one alone.

    `starts`: (N * roles + 1,) the place of the first token of every answer, row by row.
    """

    def cut(row: int) -> Example:
        example, first = examples[row], row * len(roles)
        answers = {role: _at(example.responses[role], int(starts[first + place]), whole) for place, role in enumerate(roles)}
        return replace(example, prompt=PROMPT, responses=answers)

    return LazySequence(len(examples), cut)


def _at(response: Response, start: int, whole: bool) -> Response:
    if whole:
        return replace(response, ids=np.arange(start, start + len(response.ids), dtype=np.int32))
    return Response(np.array([start], dtype=np.int32), np.array([bool(response.mask.any())]), NOWHERE, response.text)


@dataclass(frozen=True)
class FeaturePath:
    """A scorer's path that looks features up instead of computing them."""

    features: Mapping[int, np.ndarray]
    """(T, H) by answer, in the order of `starts`; (1, H) where only the last token is kept."""
    starts: np.ndarray

    def __call__(self, model: Any, groups: Sequence[Group], request: Request) -> TokenValues:
        """The head's outputs at the features of the tokens that train."""
        assert request.outputs is not None, "only a head can read features"
        device = next(model.parameters()).device
        read = [self._of(branch) for group in groups for branch in group.branches if branch.mask.any()]
        if not read:
            parameter = next(request.outputs.parameters())
            stacked = torch.zeros(0, next(iter(self.features.values())).shape[1], dtype=parameter.dtype, device=device)
        else:
            stacked = torch.from_numpy(np.concatenate(read)).to(device)
        return TokenValues(torch.zeros(len(stacked), dtype=stacked.dtype, device=device), outputs=head_outputs(request.outputs, stacked))

    def _of(self, branch: Branch) -> np.ndarray:
        answer = int(np.searchsorted(self.starts, branch.ids[0], side="right")) - 1
        read: np.ndarray = self.features[answer][branch.mask]
        return read


def feature_rows(scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> dict[str, Ragged]:
    """`compute_last_features` as the cache keeps them: one (H,) array per answer."""
    return (
        {role: list(rows) for role, rows in compute_last_features(scorer, examples, roles, precision).items()}
        if len(examples)
        else {role: [] for role in roles}
    )


def feature_tokens(scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> dict[str, Ragged]:
    """`compute_token_features` as the cache keeps them: one (T * H,) array per answer."""
    found = compute_token_features(scorer, examples, roles, precision)
    return {role: [own.ravel() for own in rows] for role, rows in found.items()}


@contextmanager
def on_features(session: Session, trainer: Trainer, plan: Plan) -> Iterator[tuple[Trainer, Plan]]:
    """(trainer, plan) that read features where the model stays as it is, both unchanged otherwise; the scorer computes again afterwards.

    Of last tokens where the objective reads no others; of all tokens of the answers where rows are visited again and their features fit in memory.
    """
    contract = trainer.contract
    if not contract.frozen and not _reads_tokens_again(session, trainer, plan):
        yield trainer, plan
        return
    data, roles, scorer, whole = trainer.data, contract.roles, trainer.scorer, not contract.frozen
    visited = plan.visited()
    kind, measure = ("token-features", feature_tokens) if whole else ("features", feature_rows)
    cache = replace(session.cache, kind=kind, measure=measure)
    rows = data.examples.take(visited) if hasattr(data.examples, "take") else [data.examples[row] for row in visited]
    found = cache.values(session.policy, scorer, rows, roles, session.precision, session.usage)
    width = hidden_size(session)
    features = {
        int(row) * len(roles) + place: np.array(found[role][index]).reshape(-1, width)
        for place, role in enumerate(roles)
        for index, row in enumerate(visited)
    }
    lengths = np.stack(token_lengths(data.examples, roles)[1], axis=1) if whole else np.ones((len(data.examples), len(roles)), dtype=np.int64)
    starts = np.concatenate([[0], lengths.ravel().cumsum()])
    short = replace(data, examples=stand_ins(data.examples, roles, starts, whole=whole), reference={})
    own, scorer.path = scorer.path, FeaturePath(features, starts)
    try:
        yield replace(trainer, data=short), replace(plan, tokens=1 + lengths.sum(1))
    finally:
        scorer.path = own


def _reads_tokens_again(session: Session, trainer: Trainer, plan: Plan) -> bool:
    """Whether a head alone trains on the same tokens more than once, and needs nothing of the model but states that fit in memory."""
    contract = trainer.contract
    if not contract.frozen_backbone or not contract.outputs or contract.needs or contract.action_value is not None or contract.modules:
        return False
    visited = plan.visited()
    if sum(len(plan.rows(index)) for index in range(len(plan))) < 2 * len(visited):
        return False
    size = 4 * hidden_size(session) * sum(int(own[visited].sum()) for own in token_lengths(trainer.data.examples, contract.roles)[1])
    if size > MOST_BYTES:
        most = f"{MOST_BYTES / 2**30:g} GiB"
        session.say(f"features: those of all answers would take {size / 2**30:.1f} GiB, more than {most}; they are computed in every epoch")
    return size <= MOST_BYTES
