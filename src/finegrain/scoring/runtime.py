"""Token log-probabilities of data under a frozen model: what implicit rewards are differences of."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from finegrain.data.records import Example
from finegrain.data.store import longest_row
from finegrain.files import cache_folder
from finegrain.models.fingerprint import model_fingerprint, tokenizer_fingerprint
from finegrain.models.load import Policy, check_tokens
from finegrain.models.probe import make_scorer
from finegrain.models.reference import ScoreCache
from finegrain.models.score import ComputeUsage, Precision, score_rows
from finegrain.models.scorer import silence_dropout
from finegrain.scoring.devices import open_device
from finegrain.scoring.records import Scores, check_finite
from finegrain.scoring.tokens import TokenisedReward, TokenReader, group_by_roles, is_cut
from finegrain.train.distributed import barrier, rank, world
from finegrain.types import Json, Ragged, Scored


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
    engine, _ = make_scorer(policy.model, longest=longest_row(examples, roles))
    if runtime.cache is None:
        return score_rows(engine, examples, roles, runtime.precision)
    return runtime.cache.values(policy, engine, examples, tuple(roles), runtime.precision, runtime.usage)


def identify_weights(policy: Policy, precision: Precision, max_length: int) -> Json:
    """Of a model that reads tokens: hashes of weights and tokenizer, the longest row and the arithmetic."""
    return {
        "source": policy.source,
        "weights": model_fingerprint(policy, cache_folder()),
        "tokenizer": tokenizer_fingerprint(policy.tokenizer),
        "max_length": max_length,
        "dtype": precision.name,
    }


@dataclass(frozen=True, eq=False)
class LogprobReward(TokenisedReward):
    """A reward that is made of log-probabilities of an answer's tokens."""

    reader: TokenReader
    runtime: Runtime

    @abstractmethod
    def _read(self, examples: Sequence[Example], roles: Sequence[str]) -> Iterator[dict[str, Scores]]:
        """Scores of examples that all have these roles."""

    def score_examples(self, examples: Sequence[Example]) -> Iterator[Mapping[str, Scores]]:
        """By role, example after example."""
        found: list[Mapping[str, Scores]] = [{}] * len(examples)
        for roles, places in group_by_roles(examples):
            own = examples if len(places) == len(examples) else [examples[place] for place in places]
            for place, scores in zip(places, self._read(own, roles), strict=True):
                found[place] = scores
        yield from found

    def _finish(self, example: Example, role: str, answer: Scored, tokens: Scored) -> Scores:
        response = example.responses[role]
        return check_finite(example.row, role, Scores(answer, tokens, response, is_cut(response, self.tokenizer.eos_token_id)))

    def with_micro_batch(self, tokens: int) -> Any:
        """The same with other batches, and nothing from a cache."""
        return replace(self, runtime=replace(self.runtime, precision=replace(self.runtime.precision, micro_tokens=tokens), cache=None))
