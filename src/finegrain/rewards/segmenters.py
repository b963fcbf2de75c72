"""Where segments of an answer end, for a reward that is learned by segments. The token that closes a turn (EOS) is in no segment.

Source: Yin et al. 2025, https://arxiv.org/abs/2501.02790, entropy cut-off and end rules as in the authors' code.
Deviations: every turn of an answer of several turns is segmented separately [choice]; every other segmenter here is ours [OURS]: it segments the
curve of entropies minus the answer's mean, like a curve of token scores for credit.
"""

import torch

from finegrain.ops import segmenters
from finegrain.ops.masked import masked_mean
from finegrain.ops.segmenters import Ids, Mask, Values
from finegrain.ops.segments import without_closing
from finegrain.ops.text_segmenters import EntropyCutoff

Segmenter = EntropyCutoff | segmenters.Segmenter


def reads_entropy(segmenter: Segmenter) -> bool:
    """Whether a segmenter uses the start model's entropies."""
    return segmenter.reads is not segmenters.Curve.NOTHING


def cut_segments(segmenter: Segmenter, entropy: Values, mask: Mask) -> Ids:
    """Segment ids, closing tokens in none; `entropy`, nats, of the distribution that predicts each token (any values where it is not read)."""
    if not isinstance(segmenter, EntropyCutoff):
        entropy = torch.where(mask, entropy - masked_mean(entropy, mask)[:, None], 0.0)
    return without_closing(segmenter(entropy, mask), mask)
