"""A policy as a reward without a reference: what it makes of the log-probabilities of an answer's tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from finegrain.data.records import Example
from finegrain.models.load import Policy, load_policy, master_dtype
from finegrain.ops.readout import Mean, NegativeNorm, Readout, Sum
from finegrain.scoring.records import Scores
from finegrain.scoring.runtime import LogprobReward, identify_weights, policy_logps
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.tokens import TokenReader
from finegrain.types import Json, Scored

READOUTS: dict[str, Readout] = {"norm": NegativeNorm(), "avg": Mean(), "sum": Sum()}
"""RewardBench's modes of policies without a reference."""


@dataclass(frozen=True, eq=False)
class LikelihoodReward(LogprobReward):
    """Log-probabilities, nats, of an answer's tokens, and their readout as its score."""

    policy: Policy
    mode: str

    def _read(self, examples: Sequence[Example], roles: Sequence[str]) -> Iterator[dict[str, Scores]]:
        logps = policy_logps(self.runtime, self.policy, examples, roles)
        for place, example in enumerate(examples):
            yield {role: self._scores(example, role, logps[role][place]) for role in roles}

    def _scores(self, example: Example, role: str, logp: np.ndarray) -> Scores:
        values, mask = torch.from_numpy(logp.astype(np.float64)), torch.from_numpy(np.array(example.responses[role].mask))
        return self._finish(example, role, Scored(READOUTS[self.mode](values[None], mask[None])[0]), Scored(values))

    def identity(self) -> Json:
        """Of the policy and the readout."""
        return {"kind": "likelihood", **identify_weights(self.policy, self.runtime.precision, self.reader.max_length), "mode": self.mode}


def open_likelihood(sources: Sequence[str], options: RewardOptions) -> LikelihoodReward:
    """The policy of a checkpoint folder or Hub name."""
    (source,) = sources
    assert options.likelihood is not None
    runtime = options.runtime()
    policy = load_policy(source, master=master_dtype(runtime.precision.name))
    return LikelihoodReward(TokenReader(policy.tokenizer, options.max_length), runtime, policy, options.likelihood)
