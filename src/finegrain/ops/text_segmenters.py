"""Segments that follow the text or the start model's uncertainty, and not the token scores.

Source: entropy cut-off: Yin et al. 2025, https://arxiv.org/abs/2501.02790; randomised n-grams, perplexity and parses: Chai et al. 2024 (MA-RLHF),
https://arxiv.org/abs/2410.02743, as in the authors' code. Fixed n-grams are `ops.segmenters.Windows`.
Deviations: the token that closes a turn joins the segment before it, where the authors leave it alone. Every answer of a random n-gram
draws by its own tokens, so that its segments depend on no other row [OURS]. A rise of the perplexity may start a segment at the rising
token (the paper's text, memory) or at the token before it (the code).
"""

from dataclasses import dataclass, field
from typing import ClassVar
from zlib import crc32

import numpy as np
import torch

from finegrain.checked import NonNegativeFloat, PositiveInt, Seed, checked
from finegrain.ops.segmenters import Curve, Ids, Mask, Values
from finegrain.ops.segments import change_curve, place_in_turn, segments_from, turn_ends

LENGTHS = (1, 2, 3, 5, 10)
"""Of random n-grams, in tokens: the authors'."""


@dataclass(frozen=True, kw_only=True)
@checked
class EntropyCutoff:
    """A segment ends where the start model is uncertain how to continue: the next token starts a new unit."""

    reads: ClassVar[Curve] = Curve.ENTROPY

    cutoff: NonNegativeFloat = 2.0
    """Entropy of the next-token distribution, nats, above which (strictly) a segment starts; 0: every token; above every entropy: one segment.

    The authors' 2.0 is for Llama, 1.75 for Phi-3.
    """

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids; `values` are entropies of the distributions that predict the tokens."""
        return segments_from(values > self.cutoff, mask)


@dataclass(frozen=True, kw_only=True)
class AtRise:
    """The rising token starts the segment (the paper's text, memory)."""

    def __call__(self, rises: Mask) -> Mask:
        """Where segments start."""
        return rises


@dataclass(frozen=True, kw_only=True)
class BeforeRise:
    """The token before the rise starts it (the authors' code)."""

    def __call__(self, rises: Mask) -> Mask:
        """Where segments start."""
        return torch.cat([rises[:, 1:], torch.zeros_like(rises[:, :1])], 1)


@dataclass(frozen=True, kw_only=True)
@checked
class Perplexity:
    """A segment starts where the start model's perplexity of the token rises; within a segment it does not."""

    reads: ClassVar[Curve] = Curve.SURPRISAL

    start: AtRise | BeforeRise = field(default_factory=AtRise)
    """Which token starts the segment."""

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids; `values` are surprisals, or perplexities: the order is the same."""
        values = torch.where(mask, values, 0.0)
        return segments_from(self.start(mask & (place_in_turn(mask) > 0) & (values > values.roll(1, 1))), mask)


@dataclass(frozen=True, kw_only=True)
@checked
class RandomNGram:
    """Segments of 1, 2, 3, 5 or 10 tokens in random order; when the list is used up, the rest of the turn is one segment."""

    reads: ClassVar[Curve] = Curve.TOKENS

    repeats: PositiveInt = 3
    """How often each length stands in the list [choice]."""
    seed: Seed = 0
    """Of the draws; every answer adds its tokens."""

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids; `values` are token ids."""
        rows = zip(values.cpu().numpy(), mask.cpu().numpy(), turn_ends(mask).cpu().numpy(), strict=True)
        starts = [self._starts(np.where(own, ids, 0).astype(np.int64), own, ends) for ids, own, ends in rows]
        return segments_from(torch.from_numpy(np.stack(starts)).to(mask.device), mask)

    def _starts(self, ids: np.ndarray, mask: np.ndarray, ends: np.ndarray) -> np.ndarray:
        generator = np.random.default_rng([self.seed, crc32(ids[mask].tobytes())])
        starts, begin = np.zeros(len(mask), dtype=bool), 0
        for last in np.flatnonzero(ends):
            turn = np.flatnonzero(mask[begin : last + 1]) + begin
            cuts = generator.permutation(np.repeat(LENGTHS, self.repeats)).cumsum()
            starts[turn[cuts[cuts < len(turn)]]] = True
            begin = int(last) + 1
        return starts


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """A segment is a sentence of the answer: it ends after `.`, `!` or `?` with white space, or at a line break."""

    reads: ClassVar[Curve] = Curve.SENTENCES

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids; `values` are numbers of sentences."""
        return segments_from(change_curve(values, mask) > 0, mask)


@dataclass(frozen=True, kw_only=True)
@checked
class Constituents:
    """A segment is a constituent of a bracketed parse, `(S (NP a cat) (VP sat))`, from the column `<role>_parse`."""

    reads: ClassVar[Curve] = Curve.CONSTITUENTS

    most: PositiveInt = 5
    """Largest constituents of fewer tokens than this are one segment; a single token joins the one before it (number: memory)."""

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids; `values` are numbers of constituents."""
        return segments_from(change_curve(values, mask) > 0, mask)
