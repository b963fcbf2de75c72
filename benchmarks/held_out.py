"""Pairs as plain rows, and how often a trained reward scores the chosen answer of a held-out pair higher."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import transformers

from finegrain.data.load import load_examples
from finegrain.data.records import Example, Shape
from finegrain.data.tokenise import Tokenise
from finegrain.evaluate.accuracy import PairAccuracy, pair_accuracy
from finegrain.models.probe import make_scorer
from finegrain.models.reward_models import RewardModel
from finegrain.models.score import Precision, compute_head_rows
from finegrain.rewards.heads import Readout, RewardHead, read_out
from finegrain.types import Json, Ragged

ROLES = ("chosen", "rejected")


def plain_rows(data: Path, model: Path, max_length: int) -> list[Json]:
    """Prompt, chosen and rejected answer as text, a row per pair, of any form of data."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    read = load_examples(str(data), tokenizer, shape=Shape.PREFERENCE, settings=Tokenise(max_length=max_length)).examples
    return [{"prompt": one.prompt_text, **{role: one.responses[role].text for role in ROLES}} for one in read]


def outputs_of(reward: RewardModel, examples: Sequence[Example], longest: int) -> Mapping[str, Ragged]:
    """By role, what the head says at every token."""
    scorer, _ = make_scorer(reward.policy.model, longest=longest, head=reward.head)
    return compute_head_rows(scorer, examples, ROLES, Precision(nullcontext, "float32", 2048))


def accuracy_of(head: RewardHead, readout: Readout, outputs: Mapping[str, Ragged], examples: Sequence[Example]) -> PairAccuracy:
    """How often the chosen answer scores higher, answers read from their tokens by `readout`."""
    scores = [
        [
            float(read_out(readout, head.tokens(torch.from_numpy(row)[None]), torch.from_numpy(np.array(one.responses[role].mask))[None]).mean)
            for row, one in zip(outputs[role], examples, strict=True)
        ]
        for role in ROLES
    ]
    return pair_accuracy(*map(np.array, scores))


def length_accuracy(examples: Sequence[Example]) -> PairAccuracy:
    """How often the chosen answer is the longer one."""
    return pair_accuracy(*(np.array([float(len(one.responses[role].ids)) for one in examples]) for role in ROLES))
