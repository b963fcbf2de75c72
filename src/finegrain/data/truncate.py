"""How a long row is cut: the prompt in the same way for all its answers, the answers at their end."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int32

from finegrain.checked import PositiveInt, SequenceLength, checked
from finegrain.data.records import FastTokenizer, Response


@dataclass(frozen=True)
class KeepEnd:
    """Cuts the start of a long prompt; the part next to the answer is kept."""

    def __call__(self, ids: Int32[np.ndarray, " P"], length: int) -> Int32[np.ndarray, " Q"]:
        """The last `length` tokens."""
        return ids[max(len(ids) - length, 0) :]


@dataclass(frozen=True)
class KeepStart:
    """Cuts the end of a long prompt."""

    def __call__(self, ids: Int32[np.ndarray, " P"], length: int) -> Int32[np.ndarray, " Q"]:
        """The first `length` tokens."""
        return ids[:length]


@dataclass(frozen=True, kw_only=True)
@checked
class Tokenise:
    """How rows become tokens."""

    max_length: SequenceLength = 1024
    """Maximum number of tokens of prompt and one answer together, including BOS and EOS."""
    prompt: KeepEnd | KeepStart = KeepEnd()
    """Which end of a prompt that is too long is kept; BOS is always kept."""
    min_prompt: PositiveInt = 128
    """Tokens of the prompt that are kept before answers are cut; at most half of `max_length`."""


LIMIT = "longest_row"
"""Attribute of a tokenizer with the number of positions of its model."""


def limit_length(tokenizer: FastTokenizer, positions: int | None) -> None:
    """Limits the length of every row that this tokenizer makes; None: there is no limit.

    The limit is stored on the tokenizer, because whatever makes rows for a model has its tokenizer.
    """
    setattr(tokenizer, LIMIT, positions)


def apply_limit(settings: Tokenise, tokenizer: FastTokenizer | None) -> Tokenise:
    """The settings with rows no longer than the number of positions of the tokenizer's model."""
    limit = getattr(tokenizer, LIMIT, None)
    return settings if limit is None or limit >= settings.max_length else replace(settings, max_length=limit)


def fit_lengths(prompt: int, answers: list[int], settings: Tokenise) -> tuple[int, list[int]]:
    """Lengths of the prompt and of each answer that fit into max_length, in tokens."""
    room = settings.max_length - max(answers)
    prompt = min(prompt, max(room, min(settings.min_prompt, settings.max_length // 2)))
    return prompt, [min(answer, settings.max_length - prompt) for answer in answers]


def cut_response(response: Response, length: int) -> Response:
    """The first `length` tokens; a cut answer has no EOS."""
    if length >= len(response.ids):
        return response
    return Response(response.ids[:length].copy(), response.mask[:length].copy(), response.offsets[:length].copy(), response.text)
