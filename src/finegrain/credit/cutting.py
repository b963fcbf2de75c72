"""Cuts answers into segments by whatever number a segmenter reads: the signal, the start model's, or the text's.

Source: constituents: Chai et al. 2024 (MA-RLHF), https://arxiv.org/abs/2410.02743, authors' code.
Deviations: sentences and constituents are found in the text and brought to the tokens as character spans [OURS].
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from finegrain.credit.answers import CreditedAnswer, map_blocks
from finegrain.credit.context import CreditContext
from finegrain.credit.signal_facts import Direction, SignalFacts
from finegrain.errors import CreditError, DataError, UsageError
from finegrain.ops.constituents import Parse, find_words, group_words, read_parse
from finegrain.ops.segmenters import Curve, Segmenter, Sign
from finegrain.ops.text_segmenters import Constituents, EntropyCutoff, Perplexity, RandomNGram, Sentences
from finegrain.types import CharSpan, Ragged

CreditSegmenter = Segmenter | EntropyCutoff | Perplexity | RandomNGram | Sentences | Constituents
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def check_segmenter(segmenter: CreditSegmenter | None, facts: SignalFacts) -> None:
    """Raises UsageError for a segmenter that reads a number which the signal does not give; None: the signal's own choice."""
    if segmenter is None or segmenter.reads is not Curve.SIGNAL:
        return
    if not facts.varies:
        raise UsageError(
            f"credit.signal:{facts.name} gives every token of an answer the same score, so this segmenter finds no border in it; take "
            "credit.segmenter:tokens, windows, whole or another that does not read the signal"
        )
    if isinstance(segmenter, Sign) and facts.direction is not Direction.ZERO:
        raise UsageError(f"credit.segmenter:sign cuts where the signal changes sign, but of {facts.name} {facts.direction.value}; take dynamic")


def cut_answers(segmenter: CreditSegmenter, context: CreditContext, answers: Sequence[CreditedAnswer]) -> list[Tensor]:
    """(T,) segment ids of every answer, -1 outside its mask."""
    masks = [answer.mask for answer in answers]
    if segmenter.reads in (Curve.SIGNAL, Curve.NOTHING):
        return map_blocks(segmenter, [answer.scored.mean for answer in answers], masks)
    numbers = {role: READERS[segmenter.reads](segmenter, context, role) for role in {answer.role for answer in answers}}
    values = [torch.from_numpy(np.asarray(numbers[answer.role][answer.row], dtype=np.float64)) for answer in answers]
    return map_blocks(segmenter, [torch.where(mask, own, 0.0) for own, mask in zip(values, masks, strict=True)], masks)


def _sentences(segmenter: CreditSegmenter, context: CreditContext, role: str) -> Ragged:
    """The number of each token's sentence; white space belongs to the sentence before it."""
    return _numbered(context, role, [sentence_starts(text) for text in context.texts(role)])


def sentence_starts(text: str) -> list[int]:
    """Where the sentences of a text begin, in characters; the first at 0."""
    return sorted({0, *(match.end() for match in SENTENCE_END.finditer(text) if match.end() < len(text))})


def _constituents(segmenter: CreditSegmenter, context: CreditContext, role: str) -> Ragged:
    """The number of each token's constituent; an answer without a parse is one."""
    assert isinstance(segmenter, Constituents)
    rows = enumerate(zip(context.parses(role), context.texts(role), strict=True))
    read = [None if parse is None else _read_row(parse, text, f"row {row}, {role}") for row, (parse, text) in rows]
    if not any(read):
        raise CreditError(f"credit.segmenter:constituents reads bracketed parses from the column {role}_parse, which no row has")
    words = _numbered(context, role, [[0] if one is None else one[1] for one in read])
    found = []
    for one, own, mask in zip(read, words, context.masks(role), strict=True):
        number = own.astype(np.int64)
        if one is not None:
            tokens = np.bincount(number[mask], minlength=len(one[0].words))
            number = np.array(group_words(one[0], tokens.tolist(), segmenter.most))[number]
        found.append(number)
    return found


def _read_row(parse: str, text: str, where: str) -> tuple[Parse, list[int]]:
    """A parse and where its words begin in the text; the first word has what stands before it, too."""
    try:
        read = read_parse(parse)
        return read, [0, *find_words(read, text)[1:]]
    except DataError as error:
        raise CreditError(f"{where}: {error}") from error


def _numbered(context: CreditContext, role: str, starts: Sequence[Sequence[int]]) -> Ragged:
    """The number of the piece of text that each token lies in, pieces being given by where they start."""
    spans: list[list[CharSpan] | None] = []
    for own, text in zip(starts, context.texts(role), strict=True):
        spans.append([CharSpan(start, end, float(number)) for number, (start, end) in enumerate(pairwise([*own, len(text)]))])
    values = context.spans_to_tokens(role, spans, 0.0)
    return [value for value in values if value is not None]


READERS: dict[Curve, Callable[[CreditSegmenter, CreditContext, str], Ragged]] = {
    Curve.ENTROPY: lambda segmenter, context, role: context.entropies(role),
    Curve.SURPRISAL: lambda segmenter, context, role: context.surprisals(role),
    Curve.TOKENS: lambda segmenter, context, role: context.token_ids(role),
    Curve.SENTENCES: _sentences,
    Curve.CONSTITUENTS: _constituents,
}
