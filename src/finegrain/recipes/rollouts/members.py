"""Members of rewards with several heads over a whole buffer: an aggregate whose minimum is that of the buffer, their spread, and whether it grows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.ops.aggregate import OfOneAnswer
from finegrain.types import Ragged, Scored

Members = Float[np.ndarray, "B 2 M"]
"""float64; means and standard deviations of M members; NaN where an answer was not judged, and for standard deviations that are unknown."""
GROWN = 2.0
"""Times its value in the first buffer: a larger spread says that the policy leaves what the members were trained on [choice]."""

MEMBERS = "members/"
"""Before the name of a reward: what its members say of the answers."""


def pack_members(answer: Scored) -> Float[np.ndarray, "2 M"] | None:
    """Those of one answer; None for a score without members."""
    if answer.members is None:
        return None
    means = answer.members.double().cpu().numpy().reshape(-1)
    stds = np.full_like(means, np.nan) if answer.member_std is None else answer.member_std.double().cpu().numpy().reshape(-1)
    return np.stack([means, stds])


def aggregate_buffer(aggregate: OfOneAnswer, members: Members) -> Float[Tensor, " B"]:
    """One reward per answer, where it depends on the other answers of the buffer; NaN where an answer was not judged."""
    judged = ~np.isnan(members[:, 0]).any(1)
    found = torch.full((len(members),), torch.nan, dtype=torch.float64)
    if judged.any():
        means, stds = torch.from_numpy(members[judged]).permute(1, 2, 0)
        found[torch.from_numpy(judged)] = aggregate(Scored(means.mean(0), None, means, None if bool(stds.isnan().any()) else stds))
    return found


def check_members(name: str, members: Members | None) -> Members:
    """Raises UsageError for a reward that has none."""
    if members is None:
        raise UsageError(f"the reward {name} has no members to take the least of; use a reward model with head:gaussian-ensemble")
    return members


def member_facts(name: str, members: Members) -> dict[str, float]:
    """Spread (largest less smallest member's mean), mean standard deviation, how often each member is the most certain; {} where nobody judged."""
    own = members[~np.isnan(members[:, 0]).any(1)]
    if not len(own):
        return {}
    means, stds = own[:, 0], own[:, 1]
    found = {f"spread/{name}": float((means.max(1) - means.min(1)).mean())}
    if not np.isnan(stds).any():
        surest = stds.argmin(1)
        found |= {f"member_std/{name}": float(stds.mean())}
        found |= {f"wins/{name}/{member}": float((surest == member).mean()) for member in range(means.shape[1])}
    return found


@dataclass
class SpreadWatch:
    """Says once when the members come apart."""

    start: dict[str, float] = field(default_factory=dict)
    """By reward, the spread in the first buffer; kept in checkpoints."""

    def __call__(self, facts: Mapping[str, float]) -> list[str]:
        """Warnings about a buffer, given its facts."""
        found = []
        for logged, value in facts.items():
            name = logged.removeprefix("spread/")
            if name == logged:
                continue
            first = self.start.setdefault(name, value)
            if value > GROWN * first:
                found.append(
                    f"the members of the reward {name} are more than {GROWN:g} times as far apart as in the first buffer: the answers leave what "
                    "they were trained on, and the reward means less and less"
                )
        return found


def members_of(whole: Mapping[str, Ragged]) -> dict[str, Members]:
    """By reward, what its members say of all answers."""
    return {name.removeprefix(MEMBERS): np.stack(own) for name, own in whole.items() if name.startswith(MEMBERS)}
