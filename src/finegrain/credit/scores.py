"""What an answer's segments exceed its baseline by, and which signals can be compared with one.

Source: keep rule against a baseline of 0: released code of the authors of https://arxiv.org/abs/2411.00809.
Deviations: the segment scores and every baseline other than 0 are our specification [OURS].
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from finegrain.credit.answers import score_segments
from finegrain.credit.signal_facts import Direction, SignalFacts
from finegrain.errors import UsageError
from finegrain.ops.segment_scores import Baseline, Constant, SegmentScore


def score_excess(
    score: SegmentScore, baseline: Baseline, values: Sequence[Tensor], ids: Sequence[Tensor], masks: Sequence[Tensor]
) -> list[Float[Tensor, " _"]]:
    """Score of each token's segment less its answer's baseline."""
    scores = score_segments(score, values, ids, masks)
    baselines = baseline([own[mask] for own, mask in zip(scores, masks, strict=True)])
    return [own - base for own, base in zip(scores, baselines, strict=True)]


def check_direction(facts: SignalFacts, baseline: Baseline, who: str) -> None:
    """Raises UsageError where agreement with the label is asked of a signal that is neither good nor bad, or whose zero says nothing."""
    if facts.direction is Direction.NONE:
        raise UsageError(
            f"{who} keeps what agrees with the label of its answer, but of the signal {facts.name} {facts.direction.value}, so nothing agrees; "
            "take credit:compose with credit.allocation:top-k, or a signal with a sign"
        )
    if facts.direction is Direction.ORDER and baseline == Constant():
        raise UsageError(
            f"{who} compares with 0, but of the signal {facts.name} {facts.direction.value}; set a baseline: batch-mean, response-mean or quantile"
        )
