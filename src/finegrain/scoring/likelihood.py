"""A policy as a reward without a reference: what it makes of the log-probabilities of an answer's tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from finegrain.data.records import Example
from finegrain.models.load import Policy, load_policy, master_dtype
from finegrain.ops.readout import Mean, NegativeNorm, Readout, Sum
from finegrain.scoring.identity import identify_weights
from finegrain.scoring.records import Scores, check_finite
from finegrain.scoring.runtime import Runtime, policy_logps
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.tokens import TokenisedReward, TokenReader, group_by_roles, is_cut
from finegrain.types import Json, Scored

READOUTS: dict[str, Readout] = {"norm": NegativeNorm(), "avg": Mean(), "sum": Sum()}
"""RewardBench's modes of policies without a reference."""


@dataclass(frozen=True, eq=False)
class LikelihoodReward(TokenisedReward):
    """Log-probabilities, nats, of an answer's tokens, and their readout as its score."""

    reader: TokenReader
    runtime: Runtime
    policy: Policy
    mode: str

    def score_examples(self, examples: Sequence[Example]) -> Iterator[Mapping[str, Scores]]:
        """By role, example after example."""
        found: list[Mapping[str, np.ndarray]] = [{}] * len(examples)
        for roles, places in group_by_roles(examples):
            own = examples if len(places) == len(examples) else [examples[place] for place in places]
            logps = policy_logps(self.runtime, self.policy, own, roles)
            for at, place in enumerate(places):
                found[place] = {role: logps[role][at] for role in roles}
        for example, values in zip(examples, found, strict=True):
            yield {role: self._scores(example, role, logp) for role, logp in values.items()}

    def _scores(self, example: Example, role: str, logp: np.ndarray) -> Scores:
        response, values = example.responses[role], torch.from_numpy(logp.astype(np.float64))
        answer = Scored(READOUTS[self.mode](values[None], torch.from_numpy(np.array(response.mask))[None])[0])
        scores = Scores(answer, Scored(values), response, is_cut(response, self.tokenizer.eos_token_id))
        return check_finite(example.row, role, scores)

    def identity(self) -> Json:
        """Of the policy and the readout."""
        return {"kind": "likelihood", **identify_weights(self.policy, self.runtime.precision, self.reader.max_length), "mode": self.mode}

    def with_micro_batch(self, tokens: int) -> "LikelihoodReward":
        """The same with other batches, and nothing from a cache."""
        return replace(self, runtime=replace(self.runtime, precision=replace(self.runtime.precision, micro_tokens=tokens), cache=None))


def open_likelihood(sources: Sequence[str], options: RewardOptions) -> LikelihoodReward:
    """The policy of a checkpoint folder or Hub name."""
    (source,) = sources
    assert options.likelihood is not None
    runtime = options.runtime()
    policy = load_policy(source, master=master_dtype(runtime.precision.name))
    return LikelihoodReward(TokenReader(policy.tokenizer, options.max_length), runtime, policy, options.likelihood)
