"""Standard deviation of scores from the disagreement of a few scorers, shrunk towards the mean over the data.

Source: ours [OURS]; a few scorers estimate one token's variance poorly, so it is averaged with the mean over the data.
Deviations: not from a paper; the weight of that mean is a [choice].
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.credit.answers import CreditedAnswer, score_segments
from finegrain.errors import CreditError
from finegrain.ops.segment_scores import SegmentScore


def shrunk_std(members: Sequence[Float[Tensor, "M _"]], masks: Sequence[Bool[Tensor, " _"]], *, n0: float) -> list[Float[Tensor, " _"]]:
    """Per token sqrt((n0 * pooled + (M - 1) s^2) / (n0 + M - 1)): s^2 the members' sample variance, pooled its mean over all tokens.

    With two members that differ by d, s^2 = d^2 / 2.
    """
    variances = [torch.where(mask, values.var(0, correction=1), 0.0) for values, mask in zip(members, masks, strict=True)]
    pooled = sum(float(variance.sum()) for variance in variances) / max(1, sum(int(mask.sum()) for mask in masks))
    own = [len(values) - 1 for values in members]
    return [((n0 * pooled + freedom * variance) / (n0 + freedom)).sqrt() for freedom, variance in zip(own, variances, strict=True)]


def segment_stds(
    score: SegmentScore, answers: Sequence[CreditedAnswer], ids: Sequence[Tensor], *, n0: float, who: str, signal: str
) -> list[Float[Tensor, " _"]]:
    """Standard deviation of the segment scores, at their tokens; raises CreditError where the signal has none. `who` needs it, for the message."""
    masks = [answer.mask for answer in answers]
    known = [answer.scored.std for answer in answers if answer.scored.std is not None]
    if len(known) == len(answers):
        return score_segments(score.std, known, ids, masks)
    several = [values for answer in answers if (values := answer.scored.members) is not None and len(values) > 1]
    if len(several) < len(answers):
        raise CreditError(
            f"{who} needs scores with an uncertainty, but the signal {signal} has none"
            + (" (no answer has two annotators, and no span states a std)" if signal == "spans" else "")
            + "; name several scorers (--credit.scorer A,B), use the run's own (credit.signal:table), or use credit:asr, which needs none"
        )
    judged = [score_segments(score, judge, ids, masks) for judge in zip(*several, strict=True)]
    return shrunk_std([torch.stack(values) for values in zip(*judged, strict=True)], masks, n0=n0)
