"""Token log-probabilities of data under a frozen model: what implicit rewards are differences of."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from finegrain.commands.settings import Common, Training
from finegrain.data.records import Example
from finegrain.data.store import token_lengths
from finegrain.models.load import Policy, check_tokens
from finegrain.models.probe import make_scorer
from finegrain.models.reference import ReferenceCache
from finegrain.models.score import Arithmetic, Work, score_rows
from finegrain.models.scorer import silence_dropout
from finegrain.recipes.session import Session, cache_folder
from finegrain.scoring.devices import open_device
from finegrain.train.distributed import barrier, rank, world
from finegrain.types import Ragged


@dataclass(frozen=True)
class Means:
    """With what frozen models are scored."""

    device: torch.device
    how: Arithmetic
    cache: ReferenceCache | None
    """None: every value is computed anew."""
    work: Work = field(default_factory=Work)


def open_means(common: Common) -> Means:
    """Device, arithmetic and cache of a command without a session."""
    _, device, how = open_device(common, Training())
    return Means(device, how, ReferenceCache(cache_folder(), rank(), world(), barrier))


def frozen_logps(session: Session, policy: Policy, examples: Sequence[Example], roles: Sequence[str]) -> dict[str, Ragged]:
    """By role, log pi(y_t) in nats, one (T,) array per example; read from the cache where it holds them."""
    return policy_logps(Means(session.device, session.how, session.cache, session.work), policy, examples, roles)


def policy_logps(means: Means, policy: Policy, examples: Sequence[Example], roles: Sequence[str]) -> dict[str, Ragged]:
    """The same without a session."""
    check_tokens(policy.model, policy.tokenizer, examples, roles)
    silence_dropout(policy.model)
    policy.model.to(means.device)
    prompts, answers = token_lengths(examples, roles)
    engine, _ = make_scorer(policy.model, longest=max(int((prompts + lengths).max()) for lengths in answers))
    if means.cache is None:
        return score_rows(engine, examples, roles, means.how)
    return means.cache.values(policy, engine, examples, tuple(roles), means.how, means.work)
