"""Completions of a policy scored by a reward model, as GRPOTrainer hands them over."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finegrain.data.conversations import ASSISTANT, is_conversation, read_turns
from finegrain.data.findings import Findings
from finegrain.data.records import Answer, Example, Response, Row, Text, Turn
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.errors import UsageError
from finegrain.models.reward_models import DEFAULT_LENGTH, stored_facts
from finegrain.scoring.devices import frozen_arithmetic
from finegrain.scoring.reward_model import RewardJudge, open_reward_model
from finegrain.scoring.runtime import Runtime
from finegrain.scoring.scale import ScoreScale, stored_scale


@dataclass(frozen=True)
class CompletionScorer:
    """A reward model that scores completions."""

    judge: RewardJudge
    max_length: int
    scale: ScoreScale | None
    """None: scores as the head gives them."""
    sampled_tokens: bool = False
    """Whether `completion_ids` are scored where they are this model's tokens of the text."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None) -> list[float | None]:
        """A score per completion; None where nothing of it is left to score."""
        for name, given in (("completions", completions), ("completion_ids", completion_ids)):
            if given is not None and len(given) != len(prompts):
                raise UsageError(f"a reward function gets as many {name} as prompts; it got {len(given)} and {len(prompts)}")
        rows = [(place, row_of(prompt, answer, place)) for place, (prompt, answer) in enumerate(zip(prompts, completions, strict=True))]
        examples = list(tokenise(rows, self.judge.tokenizer, Tokenise(max_length=self.max_length), Findings()))
        if completion_ids is not None and self.sampled_tokens:
            examples = [self._of_ids(one, rows[one.row][1], completion_ids[one.row]) for one in examples]
        found: list[float | None] = [None] * len(rows)
        for example, judged in zip(examples, self.judge(examples, ("answer",)), strict=True):
            score = float(judged["answer"].answer.mean)
            found[example.row] = score if self.scale is None else self.scale.score(score)
        return found

    def _of_ids(self, example: Example, row: Row, ids: Sequence[int]) -> Example:
        """The example with the sampled tokens of a plain-text answer; as it is where they are another tokenizer's, or the row was cut.

        Heads of segments and steps cut the text itself, and keep its tokens.
        """
        eos, answer = self.judge.tokenizer.eos_token_id, example.responses["answer"]
        own = [int(number) for number in ids if number not in (eos, self.judge.tokenizer.pad_token_id)]
        whole = eos is None or (len(answer.ids) > 0 and int(answer.ids[-1]) == eos)
        if self.judge.asked.parts is not None or not isinstance(row.prompt, str) or not whole or not own or max(own) >= len(self.judge.tokenizer):
            return example
        tail = [] if eos is None else [eos]
        if len(example.prompt) + len(own) + len(tail) > self.max_length or self.judge.tokenizer.decode(own) != answer.text:
            return example
        sampled = np.array(own + tail, dtype=np.int32)
        unknown = np.zeros((len(sampled), 2), dtype=np.int32)
        return replace(example, responses={"answer": Response(sampled, np.ones(len(sampled), bool), unknown, answer.text)})


def open_reward_function(
    run: str, *, normalise: bool, sampled_tokens: bool, max_length: int | None, device: str, dtype: str
) -> Callable[..., list[float | None]]:
    """The function of a checkpoint folder or Hub name; it is named after it, as trainers log rewards by their functions' names."""
    longest = max_length or stored_facts(run).get("input", {}).get("max_length", DEFAULT_LENGTH)
    where, precision = frozen_arithmetic(device, dtype)
    with torch.random.fork_rng(devices=[]):
        judge = open_reward_model(Runtime(where, precision, None), run, longest=longest)
    scorer = CompletionScorer(judge, longest, stored_scale(run) if normalise else None, sampled_tokens)

    def scored(prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        """Scores of completions, one per prompt."""
        return scorer(prompts, completions, kwargs.get("completion_ids"))

    scored.__name__ = Path(run).name
    return scored


def row_of(prompt: Any, completion: Any, place: int) -> Row:
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
