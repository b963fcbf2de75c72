"""Judges of answers: tokenised examples in, a score of every token and of every answer out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from finegrain.data.records import Example
from finegrain.errors import ModelError, NonFiniteError
from finegrain.models.load import Policy, load_policy, master_dtype
from finegrain.rewards.heads import of_members
from finegrain.scoring.runtime import Runtime, policy_logps
from finegrain.types import Json, Ragged, Scored


class PartScores(NamedTuple):
    """Segments or steps that a head reads."""

    ids: np.ndarray
    """(T,): the part of each token, -1 in none."""
    scores: Scored
    """(T,): each part's score at its last token, 0 elsewhere."""


class Bounded(NamedTuple):
    """What bounds on a reward model's features did to an answer's score."""

    raw: float
    """The score without them."""
    gap: float
    """The score without less the score with them."""
    flag: bool
    """Whether they took more than of clean answers."""


class Judged(NamedTuple):
    """One answer."""

    tokens: Scored
    """(T,): 0 on tokens that are not the answer's."""
    answer: Scored
    """(): a number."""
    parts: PartScores | None = None
    """None for a judge that reads no segments or steps."""
    bounded: Bounded | None = None
    """None for a judge without bounds."""
    attributes: Mapping[str, float] = {}
    """Ratings by name, of a head that has several."""


@runtime_checkable
class Judge(Protocol):
    """What judges examples tokenised by its own tokenizer."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""

    def __call__(self, examples: Sequence[Example], roles: Sequence[str]) -> Iterator[Mapping[str, Judged]]:
        """By role, example after example."""

    def facts(self) -> Json:
        """What a result must say of how answers were read so far; {} where there is nothing."""

    def words(self) -> list[str]:
        """The same for a person."""

    def plainly(self, micro_tokens: int) -> "Judge":
        """The same with other batches, and nothing from a cache."""


@dataclass(frozen=True)
class Policies:
    """The implicit reward beta * (log pi - log pi_ref) of policies against one reference; of several the mean, and their spread."""

    runtime: Runtime
    first: Policy
    others: tuple[str, ...]
    """Further policies, loaded one after the other."""
    reference: Policy
    beta: float

    @property
    def tokenizer(self) -> Any:
        """That of all of them."""
        return self.first.tokenizer

    def __call__(self, examples: Sequence[Example], roles: Sequence[str]) -> Iterator[Mapping[str, Judged]]:
        """By role, example after example; an answer's score is the sum of its tokens'."""
        old = policy_logps(self.runtime, self.reference, examples, roles)
        new = [policy_logps(self.runtime, self.first, examples, roles)]
        for source in self.others:
            new.append(policy_logps(self.runtime, same_tokens(_load(self.runtime, source), self.first), examples, roles))
        for place, example in enumerate(examples):
            found = {role: self._judged([logps[role][place] for logps in new], old[role][place]) for role in roles}
            yield check_finite(example, found)

    def _judged(self, new: Ragged, old: np.ndarray) -> Judged:
        members = torch.stack([torch.from_numpy(self.beta * (logp.astype(np.float64) - old)) for logp in new])
        if len(members) == 1:
            return Judged(Scored(members[0]), Scored(members[0].sum()))
        return Judged(of_members(members), of_members(members.sum(-1)))

    def facts(self) -> Json:
        """Nothing: every token counts."""
        return {}

    def words(self) -> list[str]:
        """Nothing."""
        return []

    def plainly(self, micro_tokens: int) -> "Policies":
        """The same with other batches, and nothing from a cache."""
        return replace(self, runtime=replace(self.runtime, precision=replace(self.runtime.precision, micro_tokens=micro_tokens), cache=None))


def open_policies(runtime: Runtime, sources: Sequence[str], reference: str, beta: float) -> Policies:
    """Policies and their reference, which must share a tokenizer."""
    first = _load(runtime, sources[0])
    return Policies(runtime, first, tuple(sources[1:]), same_tokens(_load(runtime, reference), first), beta)


def _load(runtime: Runtime, source: str) -> Policy:
    return load_policy(source, master=master_dtype(runtime.precision.name))


def same_tokens(policy: Policy, first: Policy) -> Policy:
    """The policy; raises ModelError where its tokenizer is another one than the first's."""
    if policy.tokenizer.get_vocab() != first.tokenizer.get_vocab():
        raise ModelError(f"{policy.source} has another tokenizer than {first.source}; an implicit reward needs the same tokens")
    return policy


def check_finite(example: Example, found: Mapping[str, Judged]) -> Mapping[str, Judged]:
    """The judgements; raises NonFiniteError where a score is NaN or infinite."""
    for role, one in found.items():
        numbers = (one.tokens.mean, one.answer.mean, one.tokens.std, one.answer.std)
        raw = 0.0 if one.bounded is None else one.bounded.raw
        if not math.isfinite(raw) or not all(bool(values.isfinite().all()) for values in numbers if values is not None):
            raise NonFiniteError(f"row {example.row}, {role}: a score is NaN or infinite; are the model's weights finite? try --dtype float32")
    return found
