"""A policy as a judge without a reference: what it makes of the log-probabilities of an answer's tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from finegrain.data.records import Example
from finegrain.models.load import Policy, load_policy, master_dtype
from finegrain.ops.readout import Mean, NegativeNorm, Readout, Sum
from finegrain.scoring.records import Judged, check_finite
from finegrain.scoring.runtime import Runtime, policy_logps
from finegrain.types import Json, Scored

Mode = Literal["norm", "avg", "sum"]
READOUTS: dict[Mode, Readout] = {"norm": NegativeNorm(), "avg": Mean(), "sum": Sum()}
"""RewardBench's modes of policies without a reference."""


@dataclass(frozen=True)
class Likelihoods:
    """Log-probabilities, nats, of an answer's tokens, and their readout as its score."""

    runtime: Runtime
    policy: Policy
    readout: Readout

    @property
    def tokenizer(self) -> Any:
        """The policy's."""
        return self.policy.tokenizer

    def __call__(self, examples: Sequence[Example], roles: Sequence[str]) -> Iterator[Mapping[str, Judged]]:
        """By role, example after example."""
        logps = policy_logps(self.runtime, self.policy, examples, roles)
        for place, example in enumerate(examples):
            found = {role: self._judged(logps[role][place], example.responses[role].mask) for role in roles}
            yield check_finite(example, found)

    def _judged(self, logp: np.ndarray, mask: np.ndarray) -> Judged:
        values = torch.from_numpy(logp.astype(np.float64))
        return Judged(Scored(values), Scored(self.readout(values[None], torch.from_numpy(np.array(mask))[None])[0]))

    def facts(self) -> Json:
        """Nothing: every token counts."""
        return {}

    def words(self) -> list[str]:
        """Nothing."""
        return []

    def plainly(self, micro_tokens: int) -> "Likelihoods":
        """The same with other batches, and nothing from a cache."""
        return replace(self, runtime=replace(self.runtime, precision=replace(self.runtime.precision, micro_tokens=micro_tokens), cache=None))


def open_likelihoods(runtime: Runtime, source: str, mode: Mode) -> Likelihoods:
    """The policy of a checkpoint folder or Hub name."""
    return Likelihoods(runtime, load_policy(source, master=master_dtype(runtime.precision.name)), READOUTS[mode])
