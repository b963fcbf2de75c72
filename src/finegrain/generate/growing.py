"""Answers while they are sampled: their tokens, their noise, and when they end."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from finegrain.data.generated import GrowingText, TokenTexts
from finegrain.generate.hf import end_tokens, find_opening
from finegrain.generate.sampling import Sample, Sampling, draw_noise
from finegrain.models.positions import learned_positions
from finegrain.models.scorer import causal_lm
from finegrain.online.rollout import Ended


@dataclass
class SamplingCounts:
    """What sampling some prompts took."""

    answers: int = 0
    tokens: int = 0
    prompts_too_long: int = 0
    """Prompts without an answer: they fill the context."""
    cut_by_context: int = 0
    """Answers that ended because the context was full, before their most tokens."""
    passes: int = 0
    """Forward passes over new tokens."""
    inputs: int = 0
    """Tokens of those passes, without padding."""
    padded_inputs: int = 0
    """The same if every answer of a pass had as many as the largest."""
    columns: int = 0
    """Tokens kept of those passes."""
    padded_columns: int = 0
    """The same if every answer had as many as the largest."""
    proposed: int = 0
    """Drafted tokens."""
    accepted: int = 0
    """Of them those that were the tokens drawn."""

    @property
    def wasted(self) -> int:
        """Drafted tokens that were computed in vain."""
        return self.proposed - self.accepted

    def as_json(self) -> dict[str, int]:
        """For logs."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"wasted": self.wasted}


@dataclass(eq=False)
class GrowingAnswer:
    """One answer to a prompt."""

    noise: np.ndarray
    """(room,) uniform numbers."""
    ends: frozenset[int]
    stop: tuple[str, ...]
    text: GrowingText | None
    """None where no stop string is looked for."""
    full: bool
    """Whether the context leaves room for fewer tokens than were asked for."""
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    ended: Ended | None = None

    @property
    def left(self) -> int:
        """Tokens that it may still have."""
        return len(self.noise) - len(self.ids)

    def take(self, token: int, logp: float) -> None:
        """Appends a token and notes whether the answer has ended."""
        self.ids.append(token)
        self.logp.append(logp)
        new = self.text.add(token) if self.text and token not in self.ends else ""
        if token in self.ends:
            self.ended = Ended.END_TOKEN
        elif new and self.text and self.text.find_stop(self.stop, len(new)) is not None:
            self.ended = Ended.STOP_STRING
        elif not self.left:
            self.ended = Ended.LENGTH

    def finish(self) -> Sample:
        """The answer once it has ended."""
        assert self.ended is not None
        return Sample(np.array(self.ids, dtype=np.int32), self.ended, np.array(self.logp, dtype=np.float64))


class Beginnings:
    """Makes the empty answers of prompts."""

    def __init__(self, model: Any, tokenizer: Any, sampling: Sampling, seed: int) -> None:
        self._model, self._tokenizer, self._sampling, self._seed = model, tokenizer, sampling, seed
        self.ends = frozenset(end_tokens(model, tokenizer))
        self.context = find_context(model)
        self._texts = TokenTexts(tokenizer) if sampling.stop else None

    def open_prompt(self, prompt: np.ndarray) -> np.ndarray:
        """The prompt; an empty one as BOS."""
        return prompt if len(prompt) else np.array([find_opening(self._model, self._tokenizer)], dtype=np.int32)

    def begin(self, length: int, key: int, buffer: int) -> list[GrowingAnswer]:
        """The answers of a prompt of this many tokens, without a token; none where they would have no room."""
        own = self._sampling
        room = min(own.max_new_tokens, self.context - length)
        return [] if room <= 0 else [self._begin(draw_noise(self._seed, buffer, key, sample, room)) for sample in range(own.answers)]

    def _begin(self, noise: np.ndarray) -> GrowingAnswer:
        own = self._sampling
        return GrowingAnswer(noise, self.ends, own.stop, GrowingText(self._texts) if self._texts else None, len(noise) < own.max_new_tokens)


def count_answers(answers: Sequence[Sequence[GrowingAnswer]]) -> SamplingCounts:
    """Counts of finished answers by prompt; those of passes are 0."""
    flat = [one for own in answers for one in own]
    return SamplingCounts(
        answers=len(flat),
        tokens=sum(len(one.ids) for one in flat),
        prompts_too_long=sum(not own for own in answers),
        cut_by_context=sum(one.full and one.ended == Ended.LENGTH for one in flat),
    )


def find_context(model: Any) -> int:
    """Most tokens of a prompt with its answer: the model's table of positions, or the length that its config states."""
    config = causal_lm(model).config
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    return learned_positions(config) or (stated if isinstance(stated, int) and stated > 0 else None) or 10**9
