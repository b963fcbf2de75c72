"""Prompts and answers as token arrays: parts joined, BOS once at the start, EOS once at the end."""

import numpy as np
from jaxtyping import Bool, Int32

from finegrain.data.encode import Encoded, Encoder
from finegrain.data.records import FastTokenizer, Response
from finegrain.data.render import AnswerPart, Rendered


class Specials:
    """The special tokens of a tokenizer."""

    def __init__(self, tokenizer: FastTokenizer) -> None:
        self.bos: int | None = tokenizer.bos_token_id
        self.eos: int | None = tokenizer.eos_token_id
        added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.ids: frozenset[int] = frozenset(tokenizer.all_special_ids) | added


class BatchTokens:
    """Every prompt and part of a batch, tokenised once."""

    def __init__(self, batch: list[Rendered], encoder: Encoder) -> None:
        firsts = [parts[0].text for one in batch if not one.prompt for parts in one.parts.values() if parts]
        opening = list(dict.fromkeys([*(one.prompt for one in batch), *firsts]))
        continuing = list(dict.fromkeys(part.text for one in batch for parts in one.parts.values() for part in parts))
        self._opening = dict(zip(opening, encoder.opening(opening), strict=True))
        self._continuing = dict(zip(continuing, encoder.continuing(continuing), strict=True))

    def prompt(self, rendered: Rendered) -> Int32[np.ndarray, " P"]:
        """Tokens of the prompt, without an added BOS."""
        return self._opening[rendered.prompt].ids

    def part(self, rendered: Rendered, role: str, index: int) -> Encoded:
        """Tokens of a part of an answer."""
        text = rendered.parts[role][index].text
        return self._continuing[text] if index or rendered.prompt else self._opening[text]


def start_with_bos(ids: Int32[np.ndarray, " P"], specials: Specials) -> Int32[np.ndarray, " Q"]:
    """The prompt with BOS once at its start."""
    if specials.bos is None:
        return ids
    others = np.flatnonzero(ids != specials.bos)
    return np.concatenate([np.array([specials.bos], dtype=np.int32), ids[others[0] :] if len(others) else ids[:0]])


def join_response(rendered: Rendered, role: str, tokens: BatchTokens, specials: Specials) -> Response:
    """The whole answer: its parts and its end token."""
    ids: list[np.ndarray] = [np.zeros(0, np.int32)]
    mask: list[np.ndarray] = [np.zeros(0, bool)]
    offsets: list[np.ndarray] = [np.zeros((0, 2), np.int32)]
    parts = rendered.parts[role]
    for index, part in enumerate(parts):
        encoded = tokens.part(rendered, role, index)
        kept = _ending(encoded.ids, specials) if part.ending else encoded.ids
        trains = np.full(len(kept), part.trains or (part.ending and part.closes))
        if part.closes and not part.ending and len(kept):
            trains[0] = int(kept[0]) in specials.ids
        ids.append(kept)
        mask.append(trains)
        offsets.append(_places(part, encoded) if part.trains else np.zeros((len(kept), 2), np.int32))
    closes = not parts or (parts[-1].closes if parts[-1].ending else parts[-1].trains)
    return _end_once(np.concatenate(ids), np.concatenate(mask), np.concatenate(offsets), rendered.texts[role], specials, closes)


def _places(part: AnswerPart, encoded: Encoded) -> Int32[np.ndarray, "T 2"]:
    """Character offsets into the answer's text: from the first to the last mapped character of each token."""
    starts, ends = encoded.offsets[:, 0], encoded.offsets[:, 1]
    if len(part.runs) == 1:
        (run,) = part.runs
        begin, end = np.maximum(starts, run.begin), np.minimum(ends, run.end)
        return np.where((starts < ends) & (begin < end), np.array([begin, end]) + (run.start - run.begin), 0).T.astype(np.int32, order="C")
    length = len(part.text)
    places = np.full(length + 1, -1)
    for run in part.runs:
        places[run.begin : run.end] = np.arange(run.start, run.start + run.end - run.begin)
    there = places >= 0
    after = np.minimum.accumulate(np.where(there, np.arange(length + 1), length)[::-1])[::-1]
    before = np.maximum.accumulate(np.where(there, np.arange(length + 1), -1))
    first, last = after[starts], before[np.maximum(ends - 1, 0)]
    found = (ends > starts) & (first < ends) & (last >= starts)
    return np.where(found[:, None], np.stack([places[first], places[last] + 1], axis=1), 0).astype(np.int32)


def _ending(ids: Int32[np.ndarray, " T"], specials: Specials) -> Int32[np.ndarray, " K"]:
    """What a template writes after the last answer: the tokens up to EOS, else one special token, else nothing."""
    if specials.eos is not None and (ids == specials.eos).any():
        return ids[: int(np.argmax(ids == specials.eos)) + 1]
    return ids[: int(len(ids) > 0 and int(ids[0]) in specials.ids)]


def _end_once(
    ids: Int32[np.ndarray, " T"], mask: Bool[np.ndarray, " T"], offsets: Int32[np.ndarray, "T 2"], text: str, specials: Specials, closes: bool
) -> Response:
    """The answer with EOS once at its end; EOS trains where the last turn does."""
    if specials.eos is None:
        return Response(ids, mask, offsets, text)
    others = np.flatnonzero(ids != specials.eos)
    length = int(others[-1]) + 1 if len(others) else 0
    return Response(
        np.append(ids[:length], np.int32(specials.eos)),
        np.append(mask[:length], closes),
        np.concatenate([offsets[:length], np.zeros((1, 2), np.int32)]),
        text,
    )
