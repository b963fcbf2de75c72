"""The implicit reward of policies: beta times the log-ratio to the model they were trained from, token by token."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from finegrain.data.records import Example
from finegrain.errors import ModelError
from finegrain.models.load import Policy, load_policy, master_dtype
from finegrain.rewards.heads import combine_members
from finegrain.scoring.records import Scores
from finegrain.scoring.runtime import LogprobReward, Runtime, identify_weights, policy_logps
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.tokens import TokenReader
from finegrain.types import Json, Ragged, Scored

Logps = Callable[[Runtime, Sequence[Example], Sequence[str]], Mapping[str, Ragged]]
"""(runtime, examples, roles) -> by role log pi(y_t) of every answer, nats."""


@dataclass(frozen=True, eq=False)
class ImplicitReward(LogprobReward):
    """beta * (log pi - log pi_ref) of policies against one reference; of several the mean, and their spread."""

    beta: float
    reference: Logps
    policies: Sequence[Logps]
    identify: Callable[[], Json]
    """Its identity."""
    widened: bool = True
    """Whether the difference is taken in float64; False: in the arithmetic of the log-probabilities, as training takes it."""

    def _read(self, examples: Sequence[Example], roles: Sequence[str]) -> Iterator[dict[str, Scores]]:
        old = self.reference(self.runtime, examples, roles)
        new = [policy(self.runtime, examples, roles) for policy in self.policies]
        for place, example in enumerate(examples):
            yield {role: self._scores(example, role, [logps[role][place] for logps in new], old[role][place]) for role in roles}

    def _scores(self, example: Example, role: str, new: Ragged, old: np.ndarray) -> Scores:
        """An answer's score is the sum of its tokens'."""
        wide = [logp.astype(np.float64) if self.widened else logp for logp in new]
        members = torch.stack([torch.from_numpy(self.beta * (logp - old)) for logp in wide])
        if len(members) == 1:
            return self._finish(example, role, Scored(members[0].sum()), Scored(members[0]))
        return self._finish(example, role, combine_members(members.sum(-1)), combine_members(members))

    def identity(self) -> Json:
        """Of all policies and their reference."""
        return self.identify()


def open_implicit(sources: Sequence[str], options: RewardOptions) -> ImplicitReward:
    """Policies and their reference, which must share a tokenizer."""
    assert options.reference is not None
    runtime = options.runtime()
    first = _load(runtime, sources[0])
    reference = same_tokens(_load(runtime, options.reference), first)
    members: list[Logps] = [read_logps(first), *(partial(_loaded_logps, source, first) for source in sources[1:])]
    reader = TokenReader(first.tokenizer, options.max_length)

    def identify() -> Json:
        every = [first, *(_load(runtime, source) for source in sources[1:])]
        identities = [identify_weights(policy, runtime.precision, options.max_length) for policy in every]
        against = identify_weights(reference, runtime.precision, options.max_length)
        return {"kind": "implicit reward", "source": ", ".join(sources), "beta": options.beta, "policies": identities, "reference": against}

    return ImplicitReward(reader, runtime, options.beta, read_logps(reference), members, identify)


def read_logps(policy: Policy) -> Logps:
    """Log-probabilities of a policy that is loaded."""
    return lambda runtime, examples, roles: policy_logps(runtime, policy, examples, roles)


def _loaded_logps(source: str, first: Policy, runtime: Runtime, examples: Sequence[Example], roles: Sequence[str]) -> Mapping[str, Ragged]:
    """Of a further policy, which is loaded for the time of one pass."""
    return policy_logps(runtime, same_tokens(_load(runtime, source), first), examples, roles)


def _load(runtime: Runtime, source: str) -> Policy:
    return load_policy(source, master=master_dtype(runtime.precision.name))


def same_tokens(policy: Policy, first: Policy) -> Policy:
    """The policy; raises ModelError where its tokenizer is another one than the first's."""
    if policy.tokenizer.get_vocab() != first.tokenizer.get_vocab():
        raise ModelError(f"{policy.source} has another tokenizer than {first.source}; an implicit reward needs the same tokens")
    return policy
