"""Rewards that read text: something that is asked about completions and says a number, spans or numbers per token of each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from numbers import Real
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch

from finegrain.data.answer_text import join_answer
from finegrain.data.findings import Findings
from finegrain.data.records import Response, Text
from finegrain.data.spans import spans_to_tokens
from finegrain.errors import DataError, NonFiniteError, UsageError
from finegrain.models.load import load_own_tokenizer
from finegrain.scoring.records import BLOCK, Candidates, Found, Scores, TrainerState
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.tokens import TokenReader, is_cut
from finegrain.types import CharSpan, Json, Scored


class Completion(NamedTuple):
    """One answer to be scored."""

    row: int
    role: str
    """Its role in the data: chosen, rejected, answer ..."""
    prompt: Text
    completion: Text
    columns: Mapping[str, Any]
    """The row of the data, as it is."""
    ids: Sequence[int] | None = None
    """Tokens of the answer as they were sampled; None where nobody sampled it."""
    trainer_state: TrainerState | None = None
    """None where nothing is being trained."""


class Verdict(NamedTuple):
    """What the function returned for an answer."""

    score: float | None
    """The number itself, or the sum of spans' or tokens' values; None: not scored."""
    spans: Sequence[CharSpan] = ()
    tokens: Sequence[float] = ()


ScoreTexts = Callable[[Sequence[Completion]], Sequence[Any]]
"""Returns for every completion a number, None (not scored), spans (start, end, value), or a list of numbers, one per token."""


@dataclass(frozen=True)
class TextReward:
    """A function of texts as a reward."""

    source: str
    """Its name in messages."""
    score_texts: ScoreTexts
    identify: Callable[[], Json]
    """Its identity."""
    reader: TokenReader | None = None
    """The tokenizer on whose tokens spans and lists of numbers are put; None: spans stay spans."""
    block: int | None = BLOCK
    """Candidates of one call; None: all that there are."""
    dense: bool = True
    """Whether it may say spans or numbers per token."""
    start: Callable[[Sequence[Completion]], Callable[[], Sequence[Any]]] | None = None
    """Asks without waiting, and returns what gives the answer; None for what computes."""
    tokenizer: None = None

    def read(self, candidates: Sequence[Candidates], findings: Findings) -> Sequence[Candidates | None]:
        """As they are."""
        return candidates

    def score(self, candidates: Iterable[Candidates], findings: Findings | None = None) -> Iterator[Found]:
        """Scores by role, candidates after candidates."""
        stream = iter(candidates)
        while block := list(islice(stream, self.block)):
            asked = list_completions(block)
            yield from self._found(block, asked, partial(self.score_texts, asked))

    def begin(self, candidates: Sequence[Candidates], findings: Findings) -> Iterator[Found] | None:
        """Asks about all candidates at once, without waiting; None for what computes."""
        if self.start is None:
            return None
        asked = list_completions(candidates)
        return self._found(candidates, asked, self.start(asked))

    def _found(self, block: Sequence[Candidates], asked: Sequence[Completion], say: Callable[[], Sequence[Any]]) -> Iterator[Found]:
        verdicts = iter(self._verdicts(asked, say()))
        for one in block:
            yield {role: self._scores(one, role, next(verdicts)) for role in one.roles}

    def _verdicts(self, asked: Sequence[Completion], said: Sequence[Any]) -> list[Verdict]:
        verdicts = [read_verdict(item, one.row, self.source) for item, one in zip(said, asked, strict=True)]
        for verdict, one in zip(verdicts, asked, strict=True):
            length = len(join_answer(one.completion)) if verdict.spans else 0  # the whole of an empty answer is the span 0..0
            for start, end, *_ in verdict.spans:
                if not 0 <= start < end <= length and (start, end, length) != (0, 0, 0):
                    raise UsageError(f"{self.source}, row {one.row}: the span {start}..{end} does not lie in an answer of {length} characters")
        return verdicts

    def _scores(self, given: Candidates, role: str, verdict: Verdict) -> Scores | None:
        if verdict.score is None:
            return None
        answer = Scored(torch.tensor(verdict.score, dtype=torch.float64))
        if self.reader is None or not (verdict.spans or verdict.tokens):
            return Scores(answer, spans=verdict.spans, numbers=verdict.tokens)
        response, values = self._on_tokens(self.reader, given, role, verdict)
        tokens = Scored(torch.from_numpy(np.where(response.mask, values, 0.0)))
        return Scores(answer, tokens, response, is_cut(response, self.reader.tokenizer.eos_token_id), verdict.spans)

    def _on_tokens(self, reader: TokenReader, given: Candidates, role: str, verdict: Verdict) -> tuple[Response, np.ndarray]:
        """The tokenised answer, and the verdict's value on each of its tokens."""
        text = given.text
        answer = replace(text.answers[role], spans=list(verdict.spans), token_reward=list(verdict.tokens) or None)
        one, findings = Candidates(row=given.row, made=replace(text, answers={"answer": answer}, columns={})), Findings()
        (found,) = reader([one], findings)
        if found is None or found.tokens is None:
            raise DataError(f"row {given.row}, {role}: cannot be tokenised ({findings.in_words()})")
        response, rewards = found.tokens.responses["answer"], found.tokens.token_rewards["answer"]
        if verdict.spans:
            return response, spans_to_tokens(verdict.spans, response.offsets, outside=0.0).astype(np.float64)
        if rewards is None:
            raise UsageError(f"{self.source}, row {given.row}, {role}: {findings.by_kind['token_reward_length'].example}")
        return response, rewards.astype(np.float64)

    def facts(self) -> Json:
        """Nothing is known of it."""
        return {}

    def describe(self) -> list[str]:
        """Nothing."""
        return []

    def identity(self) -> Json:
        """As it was opened with."""
        return self.identify()

    def with_micro_batch(self, tokens: int) -> "TextReward":
        """The same, asked about one prompt at a time."""
        return replace(self, block=1)


def list_completions(candidates: Sequence[Candidates]) -> list[Completion]:
    """Every answer of the candidates."""
    return [
        Completion(one.row, one.called.get(role, role), text.prompt, answer.content, one.columns, one.sampled_ids(role), one.trainer_state)
        for one, text in ((one, one.text) for one in candidates)
        for role, answer in text.answers.items()
    ]


def open_token_reader(options: RewardOptions) -> TokenReader | None:
    """The tokenizer that scores of texts are put on."""
    return None if options.tokenizer is None else TokenReader(load_own_tokenizer(options.tokenizer), options.max_length)


def read_verdict(item: Any, row: int, source: str) -> Verdict:
    """What the function returned, checked."""
    item = _listed(item)
    if item is None:
        return Verdict(None)
    if isinstance(item, Real):
        return Verdict(_finite(item, row, source))
    if isinstance(item, Sequence) and not isinstance(item, str):
        item = [_listed(one) for one in item]
    if isinstance(item, list) and all(isinstance(one, Real) for one in item) and item:
        values = [_finite(one, row, source) for one in item]
        return Verdict(sum(values), tokens=values)
    try:
        spans = [CharSpan(index(start), index(end), _finite(value, row, source)) for start, end, value in item]
    except (TypeError, ValueError) as error:
        if isinstance(error, NonFiniteError):
            raise
        raise UsageError(f"{source}, row {row}: expected a number, None, numbers per token or spans (start, end, value), got {item!r:.80}") from error
    return Verdict(sum(span.value for span in spans), spans=spans)


def _listed(item: Any) -> Any:
    """Numbers and lists of arrays and tensors."""
    return item.tolist() if hasattr(item, "tolist") else item


def _finite(value: Any, row: int, source: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if number != number or number in (float("inf"), float("-inf")):
        raise NonFiniteError(f"{source}, row {row}: a score is {number}; return None for an answer that cannot be judged")
    return number
