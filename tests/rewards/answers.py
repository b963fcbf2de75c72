"""Answers as a head or a loss finds them before training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from finegrain.types import Ragged


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is known of the answers of each role; a role that is not given is asked for in vain."""

    roles: Sequence[str]
    trains: bool = True
    role_masks: Mapping[str, Ragged] = field(default_factory=dict)
    ids: Mapping[str, Ragged] = field(default_factory=dict)
    ends: Mapping[str, Ragged] = field(default_factory=dict)
    predicting: Mapping[str, Ragged] = field(default_factory=dict)
    steps: Mapping[str, tuple[Ragged, Ragged]] = field(default_factory=dict)
    spans: Mapping[str, Sequence[np.ndarray | None]] = field(default_factory=dict)
    table: Mapping[str, Ragged] = field(default_factory=dict)
    noted: dict[str, Mapping[str, int]] = field(default_factory=dict)

    def masks(self, role: str) -> Ragged:
        return self.role_masks[role]

    def token_ids(self, role: str) -> Ragged:
        return self.ids[role]

    def end_tokens(self, role: str) -> Ragged:
        return self.ends[role]

    def table_scores(self) -> Mapping[str, Ragged]:
        return self.table

    def entropies(self, role: str) -> Ragged:
        return self.predicting[role]

    def labelled_steps(self, role: str) -> tuple[Ragged, Ragged]:
        return self.steps[role]

    def span_values(self, role: str, aspects: Sequence[str]) -> Sequence[np.ndarray | None]:
        assert all(own is None or own.shape[2] == max(1, len(aspects)) for own in self.spans[role])
        return self.spans[role]

    def note(self, name: str, facts: Mapping[str, int]) -> None:
        self.noted[name] = facts
