"""The prompts of an online run: those that buffers are made of, and those held out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from finegrain.data.gate.settings import Gate
from finegrain.data.holdout import warn_few
from finegrain.data.prompt_rows import PromptRows
from finegrain.data.questions import Question
from finegrain.data.read import read
from finegrain.data.records import Example
from finegrain.data.source_text import forget_answers
from finegrain.errors import DataError
from finegrain.generate.growing import find_context
from finegrain.recipes.prompts import DistinctPrompts
from finegrain.recipes.session import Session
from finegrain.types import Json

MOST_HELD_OUT = 64
"""Prompts: each is answered at every evaluation [choice]."""


class Prompt(NamedTuple):
    """A prompt of the data."""

    question: Question
    """Its row, as text and as it was read."""
    example: Example
    """Its tokens; the answer in it stands for nothing."""


@dataclass(frozen=True)
class _Reading:
    """`recipes.prompts.PromptSettings`."""

    data: str
    limit: int | None
    max_length: int
    gate: Gate


def read_prompts(session: Session, source: str, *, limit: int | None, room: int, gate: Gate) -> tuple[list[Prompt], Json]:
    """Every distinct prompt, cut at its start to `--max-length` less the `room` for an answer and counted; and the report of the data."""
    context = find_context(session.policy.model)
    longest = min(session.max_length, context) - room
    if longest < 1:
        least = f"--max-length {session.max_length}" if session.max_length <= context else f"the model's context of {context} tokens"
        raise DataError(f"{least} leaves no token for a prompt beside answers of {room}; raise it, or shorten the answers")
    settings = _Reading(source, limit, longest + 1, gate)
    reader = DistinctPrompts(settings, session.policy.tokenizer, PromptRows(source, limit))
    found = [Prompt(question, replace(example, source=forget_answers(example.source))) for question, example in reader()]
    for line in reader.messages():
        session.say(line)
    if repeated := reader.facts()["repeated"]:
        session.say(f"prompts: {repeated} rows repeat a prompt; each prompt counts once, with the columns of its first row")
    if not found:
        raise DataError(f"{source} gives no prompt: {reader.findings.in_words() or 'it has no rows'}")
    return found, {"source": source, "sha256": read(source, limit).sha256(), **reader.facts(), "longest_prompt": longest}


def split_prompts(prompts: Sequence[Prompt], share: float, seed: int) -> tuple[list[Prompt], list[Prompt], tuple[str, ...]]:
    """(to train, held out, warnings): a share of the prompts, at most 64, drawn by the seed."""
    want = min(MOST_HELD_OUT, round(share * len(prompts)))
    if share and want >= len(prompts):
        raise DataError(f"--training.holdout {share} leaves none of {len(prompts)} prompts for training")
    apart = set(np.random.default_rng([seed, 1]).permutation(len(prompts))[:want].tolist())
    train = [prompt for place, prompt in enumerate(prompts) if place not in apart]
    held = [prompt for place, prompt in enumerate(prompts) if place in apart]
    return train, held, warn_few(len(held))
