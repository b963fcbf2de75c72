"""Rewards of a trained reward model as targets of another one that starts from it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from finegrain.credit.reward_signals import Head
from finegrain.data.records import Example
from finegrain.errors import DataError
from finegrain.models.reward_models import RewardModel, is_reward_model, load_reward_model
from finegrain.models.scorer import Scorer
from finegrain.recipes.session import Session
from finegrain.rewards.fit import RewardFit
from finegrain.scoring.outputs import LoadedRewardModel
from finegrain.scoring.reward_model import head_of
from finegrain.scoring.segmentation import open_segmentation
from finegrain.types import Json


def stage_1_of(model: Any, objective: RewardFit) -> RewardModel | None:
    """The reward model to start from, where `model` is the folder of one; an adapter stays one where the backbone trains."""
    if not isinstance(model, str) or not is_reward_model(model):
        return None
    return load_reward_model(model, keep_adapter=not objective.frozen_backbone)


def start_head_of(stage_1: RewardModel | None, objective: RewardFit) -> nn.Module | None:
    """The head to go on from: the reward model's where it is the one that was asked for; None: a fresh one."""
    if stage_1 is None or (objective.frozen_backbone and not objective.frozen):
        return None
    own = head_of(stage_1)
    of_others = not stage_1.facts and type(own) is type(objective.head)  # their files say no more of it
    return stage_1.head if own == objective.head or of_others else None


def stage_1_targets(session: Session, model: RewardModel, examples: Sequence[Example]) -> tuple[dict[str, np.ndarray], Json]:
    """chosen_target and rejected_target: the model's scores, mean 0 and standard deviation 1 over all answers; and both before, for run.json."""
    assert session.scorer is not None
    head = head_of(model)
    scorer = Scorer(session.scorer.model, session.scorer.path, model.head.to(session.scorer.device))
    roles = ("chosen", "rejected")
    runtime = replace(session.runtime, cache=None)
    segmentation = open_segmentation(runtime, head, model.facts, model.policy.source, session.max_length)
    loaded = LoadedRewardModel(scorer, head, session.precision, model.policy.source, segmentation)
    scores = Head()(loaded, examples, roles)
    for line in [] if segmentation is None else segmentation.describe():
        session.say(f"stage 1: {line}")
    found = {role: np.array([float(one[role].answer.mean) for one in scores]) for role in roles}
    both = np.concatenate([found[role] for role in roles])
    if not both.std() > 0:
        raise DataError(f"the reward model {model.policy.source} gives every answer the same score; there is nothing to learn from it")
    facts = {"mean": float(both.mean()), "std": float(both.std()), "answers": len(both)}
    return {f"{role}_target": (found[role] - both.mean()) / both.std() for role in roles}, facts
