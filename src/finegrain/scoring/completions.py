"""Completions of a policy scored by a reward model, as GRPOTrainer hands them over."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from finegrain.data.conversations import ASSISTANT, is_conversation, read_turns
from finegrain.data.records import Answer, Row, Text, Turn
from finegrain.errors import UsageError
from finegrain.models.reward_models import DEFAULT_LENGTH, read_facts
from finegrain.scoring.devices import frozen_arithmetic
from finegrain.scoring.records import Candidates, Reward
from finegrain.scoring.reward_model import load_model_reward
from finegrain.scoring.runtime import Runtime
from finegrain.scoring.scale import ScoreScale, stored_scale


@dataclass(frozen=True)
class CompletionScorer:
    """A reward that scores completions."""

    reward: Reward
    scale: ScoreScale | None
    """None: scores as the reward gives them."""
    sampled_tokens: bool = False
    """Whether `completion_ids` are scored where they are the reward's own tokens of the text."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None) -> list[float | None]:
        """A score per completion; None where nothing of it is left to score."""
        for name, given in (("completions", completions), ("completion_ids", completion_ids)):
            if given is not None and len(given) != len(prompts):
                raise UsageError(f"a reward function gets as many {name} as prompts; it got {len(given)} and {len(prompts)}")
        candidates = [
            Candidates(row=place, made=make_row(prompt, answer, place))
            for place, (prompt, answer) in enumerate(zip(prompts, completions, strict=True))
        ]
        if completion_ids is not None and self.sampled_tokens:
            candidates = [replace(one, ids={"answer": ids}) for one, ids in zip(candidates, completion_ids, strict=True)]
        return [self._number(found) for found in self.reward.score(candidates)]

    def _number(self, found: Mapping[str, Any]) -> float | None:
        scores = found.get("answer")
        if scores is None:
            return None
        score = float(scores.answer.mean)
        return score if self.scale is None else self.scale.score(score)


def reward_function(
    run: str | Path,
    *,
    normalise: bool = False,
    sampled_tokens: bool = False,
    max_length: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Callable[..., list[float | None]]:
    """`fn(prompts, completions, **kwargs) -> list[float]` of a reward model: the score that `finegrain score` gives each complete answer.

    Prompts and completions are strings, taken as they are, or lists of messages. Columns of the data are not read. An answer of which no
    token is left gets None. `normalise`: subtract the mean of the run's held-out scores and divide by their standard deviation. `max_length`:
    by default that of the training. `sampled_tokens`: score the tokens in `completion_ids`, as sampled, instead of the tokens that the text
    has; plain text alone, and only where they are this model's tokens and decode to the completion. The function is named after the run, as
    trainers log rewards by their functions' names.
    """
    source = str(run)
    longest = max_length or read_facts(source).get("input", {}).get("max_length", DEFAULT_LENGTH)
    where, precision = frozen_arithmetic(device, dtype)
    with torch.random.fork_rng(devices=[]):
        reward = load_model_reward(Runtime(where, precision, None), source, max_length=longest)
    scorer = CompletionScorer(reward, stored_scale(source) if normalise else None, sampled_tokens)

    def scored(prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        """Scores of completions, one per prompt."""
        return scorer(prompts, completions, kwargs.get("completion_ids"))

    scored.__name__ = Path(source).name
    return scored


def make_row(prompt: Any, completion: Any, place: int) -> Row:
    """Strings as they are; messages as a conversation, an answer of one string among them as the assistant's turn."""
    if isinstance(prompt, str) and isinstance(completion, str):
        return Row(prompt=prompt, answers={"answer": Answer(content=completion)})
    turns = (Turn("user", prompt),) if isinstance(prompt, str) else _turns(prompt, f"prompt {place}")
    said: Text = (Turn(ASSISTANT, completion),) if isinstance(completion, str) else _turns(completion, f"completion {place}")
    return Row(prompt=turns, answers={"answer": Answer(content=said)})


def _turns(messages: Any, name: str) -> tuple[Turn, ...]:
    if not is_conversation(messages) or not all(isinstance(one, Mapping) for one in messages):
        raise UsageError(f"{name}: expected a string or a list of messages {{role, content}}, got {messages!r:.80}")
    return read_turns(messages, name)
