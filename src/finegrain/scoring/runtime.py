"""Token log-probabilities of data under a frozen model: what implicit rewards are differences of."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from finegrain.data.records import Example
from finegrain.data.store import token_lengths
from finegrain.models.load import Policy, check_tokens
from finegrain.models.probe import make_scorer
from finegrain.models.reference import ScoreCache, cache_folder
from finegrain.models.score import ComputeUsage, Precision, score_rows
from finegrain.models.scorer import silence_dropout
from finegrain.scoring.devices import open_device
from finegrain.train.distributed import barrier, rank, world
from finegrain.types import Ragged


@dataclass(frozen=True)
class Runtime:
    """With what frozen models are scored."""

    device: torch.device
    precision: Precision
    cache: ScoreCache | None
    """None: every value is computed again."""
    usage: ComputeUsage = field(default_factory=ComputeUsage)


def open_runtime(place: str, dtype: str) -> Runtime:
    """Device (auto, cpu, cuda:1 ...), arithmetic and cache of a command that trains nothing."""
    _, device, precision = open_device(place, dtype)
    return Runtime(device, precision, ScoreCache(cache_folder(), rank(), world(), barrier))


def policy_logps(runtime: Runtime, policy: Policy, examples: Sequence[Example], roles: Sequence[str]) -> dict[str, Ragged]:
    """By role, log pi(y_t) in nats, one (T,) array per example; read from the cache where it holds them."""
    check_tokens(policy.model, policy.tokenizer, examples, roles)
    silence_dropout(policy.model)
    policy.model.to(runtime.device)
    prompts, answers = token_lengths(examples, roles)
    engine, _ = make_scorer(policy.model, longest=max(int((prompts + lengths).max()) for lengths in answers))
    if runtime.cache is None:
        return score_rows(engine, examples, roles, runtime.precision)
    return runtime.cache.values(policy, engine, examples, tuple(roles), runtime.precision, runtime.usage)
