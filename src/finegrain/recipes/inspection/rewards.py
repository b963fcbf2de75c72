"""What a reward model says of examined answers: token scores with their uncertainty, segments, and the score of the whole answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from finegrain.data.records import Example
from finegrain.models.score import Precision, compute_head_rows
from finegrain.models.scorer import Scorer
from finegrain.rewards.heads import RewardHead, sequence_score, token_scores
from finegrain.types import Side

Segments = Sequence[Mapping[str, np.ndarray | None]]
"""By example and role, the segment of each token (T,), -1 outside; None where the head reads none."""


AnswerReward = Mapping[str, Any]
"""What replaces fields of a `report.pairs.ExaminedAnswer`; the reward model's token scores stand where a data column's would."""


def answer_rewards(
    scorer: Scorer, head: RewardHead, examples: Sequence[Example], roles: Sequence[str], segments: Segments, precision: Precision
) -> list[dict[str, AnswerReward]]:
    """By example and role; `scorer` has the head's module."""
    outputs = compute_head_rows(scorer, examples, roles, precision)
    return [
        {role: _reward(head, outputs[role][place], example.responses[role].mask, segments[place].get(role)) for role in roles}
        for place, example in enumerate(examples)
    ]


def _reward(head: RewardHead, outputs: np.ndarray, mask: np.ndarray, segment: np.ndarray | None) -> AnswerReward:
    values, on = torch.from_numpy(outputs)[None], torch.from_numpy(np.array(mask))[None]
    ids = None if segment is None else torch.from_numpy(np.array(segment))[None]
    with torch.no_grad():
        tokens = token_scores(head, values, on)
        answer = sequence_score(head, Side(logp=torch.zeros(on.shape), mask=on, segment=ids, outputs=values))
    return {
        "reward": torch.where(on, tokens.mean, 0.0)[0].double().numpy(),
        "reward_std": None if tokens.std is None else torch.where(on, tokens.std, 0.0)[0].double().numpy(),
        "segment": segment,
        "score": float(answer.mean[0]),
        "score_std": None if answer.std is None else float(answer.std[0]),
        "weight": None,
    }
