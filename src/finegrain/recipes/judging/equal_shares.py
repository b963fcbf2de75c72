"""The answer's score in equal parts on its tokens: what a signal that looks at the text has to beat."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool

from finegrain.credit.abc import ABC
from finegrain.credit.redistribute import uniform_shares
from finegrain.data.records import Example
from finegrain.recipes.judging.reward_outputs import Asked, Found, judged_by_head
from finegrain.rewards.heads import of_members
from finegrain.types import Scored


def equal_shares(asked: Asked, examples: Sequence[Example], roles: Sequence[str], spread: ABC) -> Found:
    """Equal shares of the score, and of each member's for the uncertainty."""
    found = judged_by_head(asked, examples, roles)
    return [
        {role: one._replace(tokens=_shared(one.answer, example.responses[role].mask, spread)) for role, one in judged.items()}
        for example, judged in zip(examples, found, strict=True)
    ]


def _shared(score: Scored, mask: Bool[np.ndarray, " T"], spread: ABC) -> Scored:
    """A score on the tokens; without several members their uncertainty is unknown."""
    on = torch.from_numpy(np.array(mask))[None]
    part = spread.spread(uniform_shares(on, score.mean.dtype), torch.ones(1, dtype=score.mean.dtype), on)[0]
    mean = score.mean * part
    if score.members is None or len(score.members) < 2:
        return Scored(mean)
    return of_members(score.members[:, None] * part)._replace(mean=mean)
