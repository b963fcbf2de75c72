"""One score per segment, read at its end; an answer's score is their mean.

Source: Yin et al. 2025, https://arxiv.org/abs/2501.02790 (segment reward model); details from the authors' code.
Deviations: other readouts than the mean are ours [OURS]; answers of several turns are segmented turn by turn [choice]. Every segmenter but the
entropy cut-off is ours [OURS]: it segments the curve of entropies minus the answer's mean, like a curve of token scores for credit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.ops import segmenters
from finegrain.ops.location import fit_location
from finegrain.ops.masked import masked_mean
from finegrain.ops.readout import Mean
from finegrain.ops.segmenters import Curve, Ids, Values
from finegrain.ops.segments import place_in_row, segment_ends, without_closing
from finegrain.ops.text_segmenters import EntropyCutoff
from finegrain.rewards.columns import AnswerContext
from finegrain.rewards.heads import Mask, Outputs, Readout, find_segment_ends
from finegrain.types import Scored, Side, TokenColumns

Segmenter = EntropyCutoff | segmenters.Segmenter


def cut_segments(segmenter: Segmenter, entropy: Values, mask: Mask) -> Ids:
    """Segment ids, closing tokens in none; `entropy`, nats, of the distribution that predicts each token (any values where it is not read)."""
    if not isinstance(segmenter, EntropyCutoff):
        entropy = torch.where(mask, entropy - masked_mean(entropy, mask)[:, None], 0.0)
    return without_closing(segmenter(entropy, mask), mask)


@dataclass(frozen=True, kw_only=True)
@checked
class Segment:
    """A scalar at the end of every segment."""

    outputs: ClassVar[int] = 1
    token_columns: ClassVar[tuple[str, ...]] = ("segment",)

    segmenter: Segmenter = field(default_factory=EntropyCutoff)
    """Where segments end, by the frozen start model's entropies: at a cut-off, or by any segmenter of credit on their curve."""
    readout: Readout = field(default_factory=Mean)
    """How segment scores are combined to the answer's: mean, sum, last or minimum. A sum prefers many segments."""

    def prepare(self, context: AnswerContext) -> Mapping[str, TokenColumns]:
        """Segment ids of every answer, made before training: they depend on neither policy nor reward model."""
        return {role: TokenColumns.of(segment=self._ids(context, role)) for role in context.roles}

    def _ids(self, context: AnswerContext, role: str) -> list[np.ndarray]:
        masks = context.masks(role)
        entropies = context.entropies(role) if self.reads_entropy else [np.zeros(len(mask)) for mask in masks]
        rows = zip(entropies, masks, strict=True)
        both = [(torch.from_numpy(np.array(values))[None], torch.from_numpy(np.array(mask))[None]) for values, mask in rows]
        return [cut_segments(self.segmenter, values, mask)[0].numpy() for values, mask in both]

    @property
    def reads_entropy(self) -> bool:
        """Whether the start model's entropies determine where segments end."""
        return self.segmenter.reads is not Curve.NOTHING

    def read_positions(self, side: Side) -> Mask:
        """Ends of segments."""
        return find_segment_ends(self, side)

    def tokens(self, outputs: Outputs) -> Scored:
        """The score that the segment up to each token would have if it ended there."""
        return Scored(outputs[..., 0])

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The given row."""
        return weight

    def fitted(self, sides: list[Side]) -> dict[str, Any]:
        """The location-aware normaliser of these answers' segment scores, for the checkpoint; {} where too few segments determine it."""
        places, scores = [], []
        for side in sides:
            assert side.outputs is not None
            assert side.segment is not None
            ends = segment_ends(side.segment)
            places.append(place_in_row(side.segment)[ends].cpu().double().numpy())
            scores.append(side.outputs[..., 0][ends].cpu().double().numpy())
        found = fit_location(np.concatenate(places), np.concatenate(scores))
        return {} if found is None else {"location": found.as_json()}
