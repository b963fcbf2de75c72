"""Token log-probabilities of data under a frozen model: what implicit rewards are differences of."""

from collections.abc import Sequence

from finegrain.data.records import Example
from finegrain.models.load import Policy
from finegrain.models.probe import make_scorer
from finegrain.models.reference import ReferenceCache
from finegrain.models.scorer import silence_dropout
from finegrain.recipes.session import Session
from finegrain.types import Ragged


def frozen_logps(session: Session, policy: Policy, examples: Sequence[Example], roles: Sequence[str]) -> dict[str, Ragged]:
    """By role, log pi(y_t) in nats, one (T,) array per example; read from the cache where it holds them."""
    silence_dropout(policy.model)
    policy.model.to(session.accelerator.device)
    longest = max(len(e.prompt) + max(len(e.responses[role].ids) for role in roles) for e in examples)
    engine, _ = make_scorer(policy.model, longest=longest)
    cache = ReferenceCache(session.cache.folder, session.cache.rank, session.cache.world, session.cache.barrier)
    return cache.values(policy, engine, examples, tuple(roles), session.how, session.work)
