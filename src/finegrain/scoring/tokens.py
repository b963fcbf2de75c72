"""Answers as tokens: what a reward with a tokenizer of its own reads, and scores brought from its tokens to those of another tokenizer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from finegrain.data.findings import Findings
from finegrain.data.gate.settings import Gate, Stopping
from finegrain.data.records import Example, Response
from finegrain.data.spans import spans_to_tokens, tokens_to_spans
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.errors import UsageError
from finegrain.scoring.records import Candidates, Found, Scores
from finegrain.types import Json, Scored

EVERYTHING = Stopping(Gate(identical_after_truncation="keep"))
"""Nothing is dropped but what cannot be tokenised: two equal answers have equal scores."""
Item = TypeVar("Item")


class LazySequence(Sequence[Item]):
    """Items that are made whenever they are asked for, so that rows on disk stay there."""

    def __init__(self, count: int, make: Callable[[int], Item]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._make(place) for place in range(*index.indices(self._count))]
        return self._make(range(self._count)[index])


def map_each(candidates: Iterable[Candidates], make: Callable[[Candidates], Candidates]) -> Iterable[Candidates]:
    """What `make` makes of each, as it is asked for."""
    if isinstance(candidates, Sequence):
        return LazySequence(len(candidates), lambda place: make(candidates[place]))
    return map(make, candidates)


def make_candidates(examples: Sequence[Example], tokenizer: Any) -> Sequence[Candidates]:
    """Rows that this tokenizer wrote."""

    def made(place: int) -> Candidates:
        example = examples[place]
        return Candidates(row=example.row, tokens=example, tokenizer=tokenizer)

    return LazySequence(len(examples), made)


def same_tokenisation(one: Any, other: Any) -> bool:
    """Whether two tokenizers make the same tokens of a row; those of one vocabulary may still cut a text differently."""
    return one is other or (one is not None and other is not None and _writing(one) == _writing(other))


def _writing(tokenizer: Any) -> tuple[Any, ...]:
    return tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.bos_token_id, tokenizer.eos_token_id


@dataclass(frozen=True)
class TokenReader:
    """Candidates as one tokenizer writes them."""

    tokenizer: Any
    max_length: int
    """Longest prompt + answer in tokens; answers are cut at their end."""
    takes_ids: bool = True
    """Whether sampled ids that are this tokenizer's stand for the text; heads of segments and steps cut the text itself, and keep its tokens."""

    def __call__(self, candidates: Sequence[Candidates], findings: Findings) -> Sequence[Candidates | None]:
        """The candidates with tokens of this tokenizer, as they are where they have them; None for those that cannot be tokenised."""
        if not len(candidates) or same_tokenisation(candidates[0].tokenizer, self.tokenizer):
            return candidates
        rows = ((place, one.text) for place, one in enumerate(candidates))
        found: list[Candidates | None] = [None] * len(candidates)
        for example in tokenise(rows, self.tokenizer, Tokenise(max_length=self.max_length), findings, EVERYTHING):
            one = candidates[example.row]
            responses = {role: _as_ended(self._sampled(example, role, one), role, one, self.tokenizer) for role in example.responses}
            found[example.row] = replace(one, tokens=replace(example, row=one.row, responses=responses), tokenizer=self.tokenizer)
        return found

    def _sampled(self, example: Example, role: str, given: Candidates) -> Response:
        """The answer with its sampled ids; as it is where they are another tokenizer's, or the row was cut."""
        answer, eos = example.responses[role], self.tokenizer.eos_token_id
        if not self.takes_ids or role not in given.ids or not isinstance(given.text.prompt, str):
            return answer
        own = [int(number) for number in given.ids[role] if number not in (eos, self.tokenizer.pad_token_id)]
        whole = eos is None or (len(answer.ids) > 0 and int(answer.ids[-1]) == eos)
        if not whole or not own or max(own) >= len(self.tokenizer):
            return answer
        tail = [] if eos is None else [eos]
        if len(example.prompt) + len(own) + len(tail) > self.max_length or self.tokenizer.decode(own) != answer.text:
            return answer
        sampled = np.array(own + tail, dtype=np.int32)
        offsets = np.concatenate([_sampled_offsets(own, role, given), np.zeros((len(tail), 2), dtype=np.int32)])
        return Response(sampled, np.ones(len(sampled), bool), offsets, answer.text)


def _sampled_offsets(sampled: Sequence[int], role: str, given: Candidates) -> np.ndarray:
    """(T, 2) characters of the sampled tokens where the caller knows them, else none."""
    known = None if given.tokens is None else given.tokens.responses[role]
    if known is None or known.ids[: len(sampled)].tolist() != list(sampled):
        return np.zeros((len(sampled), 2), dtype=np.int32)
    return known.offsets[: len(sampled)].astype(np.int32)


def _as_ended(answer: Response, role: str, given: Candidates, tokenizer: Any) -> Response:
    """The answer without its end token, and what follows it, where it was sampled without one: cut, or stopped at a string."""
    if given.tokens is None or role not in given.ids:
        return answer
    sampled = given.tokens.responses[role].ids
    if len(sampled) and _is_end(int(sampled[-1]), given.tokenizer):
        return answer
    ends = [place for place in np.flatnonzero(answer.mask) if _is_end(int(answer.ids[place]), tokenizer)]
    if not ends or answer.mask[ends[-1] + 1 :].any():
        return answer
    return replace(answer, ids=answer.ids[: ends[-1]], mask=answer.mask[: ends[-1]], offsets=answer.offsets[: ends[-1]])


def _is_end(token: int, tokenizer: Any) -> bool:
    """Whether a token is no text, unlike part of a character."""
    return not tokenizer.decode([token], skip_special_tokens=True)


class TokenisedReward(ABC):
    """A reward that scores tokens: whatever candidates come with, it reads those of its own tokenizer."""

    reader: TokenReader

    @abstractmethod
    def score_examples(self, examples: Sequence[Example]) -> Iterator[Mapping[str, Scores]]:
        """Scores by role, example after example, all tokenised by its own tokenizer."""

    @property
    def dense(self) -> bool:
        """Every token has a score."""
        return True

    @property
    def tokenizer(self) -> Any:
        """Its own."""
        return self.reader.tokenizer

    def read(self, candidates: Sequence[Candidates], findings: Findings) -> Sequence[Candidates | None]:
        """With tokens of its own tokenizer; None for those that cannot be tokenised."""
        return self.reader(candidates, findings)

    def score(self, candidates: Iterable[Candidates], findings: Findings | None = None) -> Iterator[Found]:
        """Scores by role, candidates after candidates."""
        given = candidates if isinstance(candidates, Sequence) else list(candidates)
        read = self.reader(given, Findings() if findings is None else findings)
        if read is given:
            yield from self.score_examples(LazySequence(len(given), lambda place: _tokens(given[place])))
            return
        scores = self.score_examples([_tokens(one) for one in read if one is not None])
        for one in read:
            yield {} if one is None else next(scores)

    def begin(self, candidates: Sequence[Candidates], findings: Findings) -> Iterator[Found] | None:
        """It computes."""
        return None

    def facts(self) -> Json:
        """Nothing: every token counts."""
        return {}

    def describe(self) -> list[str]:
        """Nothing."""
        return []


def _tokens(one: Candidates) -> Example:
    assert one.tokens is not None
    return one.tokens


def group_by_roles(examples: Sequence[Example]) -> list[tuple[tuple[str, ...], Sequence[int]]]:
    """Places of the examples that have the same roles: a pass over several examples asks for the same answers of all."""
    found: dict[tuple[str, ...], list[int]] = {}
    for place in range(len(examples)):
        found.setdefault(tuple(examples[place].responses), []).append(place)
    return list(found.items())


def is_cut(response: Response, eos: int | None) -> bool:
    """Whether tokens at the end are missing, be it the end token alone."""
    if eos is not None:
        return len(response.ids) == 0 or int(response.ids[-1]) != eos
    covered = int(response.offsets[:, 1].max(initial=0))
    return covered < len(response.text.rstrip())


def align_scores(scores: Scores, own: Response) -> Scored | None:
    """(T,) the scores of an answer's tokens, spans or numbers on the caller's tokens of the same text; None where only the answer has a score."""
    if scores.tokens is None or scores.response is None:
        if scores.numbers:
            return Scored(torch.from_numpy(np.where(own.mask, _one_each(scores.numbers, own), 0.0)))
        return Scored(torch.from_numpy(spans_to_tokens(scores.spans, own.offsets, outside=0.0).astype(np.float64))) if scores.spans else None
    tokens, response = scores.tokens, scores.response
    members = None if tokens.members is None else torch.stack([align_tokens(values, response, own) for values in tokens.members])
    std = None if tokens.std is None else align_tokens(tokens.std, response, own)
    return Scored(align_tokens(tokens.mean, response, own), std, members)


def align_tokens(values: Tensor, response: Response, own: Response) -> Tensor:
    """(T',) values of the tokens of one tokenizer as (T,) values of another's on the same text, 0 where the first had cut the answer.

    A token has the value of the characters it holds half of; the end token has the end token's.
    """
    if np.array_equal(response.ids, own.ids):
        return values
    spans = tokens_to_spans(np.where(response.mask, values.double().numpy(), 0.0), response.offsets)
    moved = spans_to_tokens(spans, own.offsets, outside=0.0).astype(np.float64)
    if _ends(response) and _ends(own):
        moved[-1] = float(values[-1])
    return torch.from_numpy(np.where(own.mask, moved, 0.0))


def _one_each(numbers: Sequence[float], own: Response) -> np.ndarray:
    """(T,) numbers per token; without one for the end token it has the last token's."""
    values = [*numbers, numbers[-1]] if len(numbers) == len(own.ids) - 1 and _ends(own) else list(numbers)
    if len(values) != len(own.ids):
        raise UsageError(f"{len(numbers)} rewards for an answer of {len(own.ids)} tokens, EOS counted")
    return np.array(values, dtype=np.float64)


def _ends(response: Response) -> bool:
    """Whether the answer closes with a token without characters."""
    return len(response.ids) > 0 and bool(response.mask[-1]) and bool(response.offsets[-1, 0] == response.offsets[-1, 1])
