"""Where segments of an answer end, for a reward that is learned by segments. The token that closes a turn (EOS) is in no segment.

Source: Yin et al. 2025, https://arxiv.org/abs/2501.02790, entropy cut-off and end rules as in the authors' code.
Deviations: every turn of an answer of several turns is segmented separately [choice]; every other segmenter here is ours [OURS]: it segments the
curve of entropies minus the answer's mean, like a curve of token scores for credit.
"""

from dataclasses import dataclass

import torch

from finegrain.checked import NonNegativeFloat, checked
from finegrain.ops import segmenters
from finegrain.ops.masked import masked_mean
from finegrain.ops.segmenters import Ids, Mask, Values
from finegrain.ops.segments import segments_from, without_closing


@dataclass(frozen=True, kw_only=True)
@checked
class EntropyCutoff:
    """A segment ends where the start model is uncertain how to continue: the next token starts a new unit."""

    cutoff: NonNegativeFloat = 2.0
    """Entropy of the next-token distribution, nats, above which (strictly) a segment starts; 0: every token; above every entropy: one segment.

    The authors' 2.0 is for Llama, 1.75 for Phi-3.
    """

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids; `values` are entropies of the distributions that predict the tokens."""
        return segments_from(values > self.cutoff, mask)


Segmenter = EntropyCutoff | segmenters.Segmenter


def reads_entropy(segmenter: Segmenter) -> bool:
    """Whether a segmenter uses the start model's entropies."""
    return not isinstance(segmenter, segmenters.Blind)


def cut_segments(segmenter: Segmenter, entropy: Values, mask: Mask) -> Ids:
    """Segment ids, closing tokens in none; `entropy`, nats, of the distribution that predicts each token (any values where it is not read)."""
    if not isinstance(segmenter, EntropyCutoff):
        entropy = torch.where(mask, entropy - masked_mean(entropy, mask)[:, None], 0.0)
    return without_closing(segmenter(entropy, mask), mask)
