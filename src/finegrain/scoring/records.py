"""The protocol of rewards: candidate answers to prompts go in, a score of every answer comes out, and of its tokens where the reward is dense.

Shape letters: T tokens of an answer, M ensemble members.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import tee
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from finegrain.data.answer_text import join_answer
from finegrain.data.findings import Findings
from finegrain.data.gate.texts import get_texts
from finegrain.data.records import Example, Response, Row
from finegrain.data.source_text import read_source_row
from finegrain.errors import NonFiniteError
from finegrain.types import CharSpan, Json, Scored

BLOCK = 64
"""Candidates that are scored, and held, at once."""


@dataclass(frozen=True, kw_only=True)
class TrainerState:
    """Where the training stands that asks for rewards: what GRPO reward functions read of their argument `trainer_state`."""

    global_step: int
    """Updates so far."""
    max_steps: int
    """Updates of the whole run."""
    epoch: float = 0.0
    """Passes over the prompts so far."""
    num_train_epochs: int = 1
    is_world_process_zero: bool = True


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """A prompt and the answers to it that are to be scored; all candidates of one call come alike, with tokens or without."""

    row: int
    """Row number in the data, for messages."""
    made: Row | None = None
    """Prompt and answers as text; None: as `tokens` tells them."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The row of the data as it was read: what functions and columns look at."""
    tokens: Example | None = None
    """Prompt and answers as tokens, where the caller has them."""
    tokenizer: Any = None
    """What wrote `tokens`; a reward with another tokenizer reads the text."""
    ids: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Token ids of answers as they were sampled, by role, without the end token; they count where they are the reward's own tokens of the text."""
    called: Mapping[str, str] = field(default_factory=dict)
    """Roles in the data of answers that have another one here."""
    trainer_state: TrainerState | None = None
    """None where nothing is being trained."""

    @property
    def text(self) -> Row:
        """Prompt and answers as text."""
        assert self.made is not None or self.tokens is not None, "candidates have texts, tokens or both"
        return read_source_row(self.tokens) if self.made is None and self.tokens is not None else self.made  # type: ignore[return-value]

    @property
    def prompt_text(self) -> str:
        """The prompt as the reward reads it: as rendered for a tokenizer, or its words."""
        return get_texts(self.text).prompt if self.tokens is None else self.tokens.prompt_text

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the answers, in their order."""
        return tuple(self.text.answers if self.tokens is None else self.tokens.responses)

    def answer_text(self, role: str) -> str:
        """The words of an answer, which spans count."""
        return join_answer(self.text.answers[role].content) if self.tokens is None else self.tokens.responses[role].text

    def sampled_ids(self, role: str) -> Sequence[int] | None:
        """Tokens of an answer as they were sampled, with the end token where `tokens` has it; None where nobody sampled it."""
        if role not in self.ids:
            return None
        return self.ids[role] if self.tokens is None else [int(token) for token in self.tokens.responses[role].ids]

    def taking(self, names: Mapping[str, str]) -> "Candidates":
        """Some of the answers, {new role: role}; the prompt is cut as it was for all of them together."""
        made, tokens = self.made, self.tokens
        if made is not None:
            made = replace(made, answers={new: made.answers[role] for new, role in names.items()})
        if tokens is not None:
            responses = {new: tokens.responses[role] for new, role in names.items()}
            spans = {new: tokens.spans.get(role) for new, role in names.items()}
            rewards = {new: tokens.token_rewards.get(role) for new, role in names.items()}
            tokens = replace(tokens, responses=responses, spans=spans, token_rewards=rewards)
        ids = {new: self.ids[role] for new, role in names.items() if role in self.ids}
        called = {new: self.called.get(role, role) for new, role in names.items()}
        return replace(self, made=made, tokens=tokens, ids=ids, called=called)


class SegmentScores(NamedTuple):
    """Segments or steps that a head reads."""

    ids: np.ndarray
    """(T,): the segment of each token, -1 in none."""
    scores: Scored
    """(T,): each segment's score at its last token, 0 elsewhere."""


class Bounded(NamedTuple):
    """What bounds on a reward model's features did to an answer's score."""

    raw: float
    """The score without them."""
    gap: float
    """The score without less the score with them."""
    flag: bool
    """Whether they took more than of clean answers."""


class Scores(NamedTuple):
    """One answer."""

    answer: Scored
    """(): the score, in the reward's own units."""
    tokens: Scored | None = None
    """(T,): scores of the tokens of `response`, 0 off its mask; None where none stand on tokens."""
    response: Response | None = None
    """The answer as the reward read it, with its tokens and their character offsets; None for a reward that reads text."""
    truncated: bool = False
    """Whether tokens at the end of the answer were cut before it was scored, be it the end token alone."""
    spans: Sequence[CharSpan] = ()
    """Scores on characters of the answer's text, of a reward that marks them."""
    numbers: Sequence[float] = ()
    """Scores per token of a tokenizer that nobody named."""
    segments: SegmentScores | None = None
    """None for a reward that reads no segments or steps."""
    bounded: Bounded | None = None
    """None for a reward without bounds."""
    attributes: Mapping[str, float] = {}
    """Ratings by name, of a reward that has several."""
    token_aspects: Mapping[str, Tensor] = {}
    """(T,) scores of the tokens by aspect, of a reward that has several; 0 off the mask."""


Found = Mapping[str, Scores | None]
"""By role; None: the reward does not score this answer. Empty: the candidates could not be read."""


@runtime_checkable
class Reward(Protocol):
    """A source of reward."""

    @property
    def dense(self) -> bool:
        """Whether it may score tokens or spans beside whole answers."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer; None for a reward that reads text."""

    def read(self, candidates: Sequence[Candidates], findings: Findings) -> Sequence[Candidates | None]:
        """The candidates as it scores them: with tokens of its own, where it reads tokens; None for those of which nothing can be read."""

    def score(self, candidates: Iterable[Candidates], findings: Findings | None = None) -> Iterator[Found]:
        """Scores by role, candidates after candidates; what cannot be read goes to the findings."""

    def begin(self, candidates: Sequence["Candidates"], findings: Findings) -> Iterator[Found] | None:
        """Asks for the same without waiting for the answer, so that others are asked meanwhile; None for a reward that computes and does not wait."""

    def facts(self) -> Json:
        """What a result must say of how answers were read so far; {} where there is nothing."""

    def describe(self) -> list[str]:
        """The same for a person."""

    def identity(self) -> Json:
        """What makes it this reward and no other: content hashes, and the settings that change scores."""

    def with_micro_batch(self, tokens: int) -> "Reward":
        """The same with other batches, of about so many tokens, nothing from a cache and nothing counted."""


def score_with_candidates(reward: Reward, candidates: Iterable[Candidates], findings: Findings | None = None) -> Iterator[tuple[Candidates, Found]]:
    """The candidates with their scores, as they come."""
    if isinstance(candidates, Sequence):  # rows on disk are read twice, not held
        return zip(candidates, reward.score(candidates, findings), strict=True)
    kept, scored = tee(candidates)
    return zip(kept, reward.score(scored, findings), strict=True)


def check_finite(row: int, role: str, scores: Scores) -> Scores:
    """The scores; raises NonFiniteError where one is NaN or infinite."""
    numbers = [scores.answer.mean, scores.answer.std]
    if scores.tokens is not None:
        numbers += [scores.tokens.mean, scores.tokens.std]
    raw = 0.0 if scores.bounded is None else scores.bounded.raw
    if not math.isfinite(raw) or not all(bool(values.isfinite().all()) for values in numbers if values is not None):
        raise NonFiniteError(f"row {row}, {role}: a score is NaN or infinite; are the model's weights finite? try --dtype float32")
    return scores
