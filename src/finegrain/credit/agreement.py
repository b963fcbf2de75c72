"""Agreement of segments with the label of their answer: the settings of every weight that is made of it.

Source: keep rule: released code of the authors of https://arxiv.org/abs/2411.00809.
Deviations: the bounds of the kept share are ours [OURS].
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from finegrain.credit.answers import CreditedAnswer, group_by_side
from finegrain.credit.scores import score_excess
from finegrain.errors import CreditError
from finegrain.ops.segment_scores import Baseline, Constant, Mean, SegmentScore
from finegrain.ops.segmenters import check


@dataclass(frozen=True, kw_only=True)
class LabelAgreement:
    """Settings of a weight by the agreement of a segment's score with the label of its answer."""

    score: SegmentScore = field(default_factory=Mean)
    """Score of a segment."""
    baseline: Baseline = field(default_factory=Constant)
    """The value that a segment's score must exceed in a chosen answer, and stay below in a rejected one."""
    min_kept: float = 0.05
    """Smallest mean weight of a side's tokens; below it the run stops before training."""
    max_kept: float = 0.95
    """Largest mean weight of a side's tokens; where every side exceeds it the credit changes nothing, and the run stops before training."""

    def __post_init__(self) -> None:
        check(0 <= self.min_kept < self.max_kept <= 1, f"0 <= min_kept < max_kept <= 1 must hold, got {self.min_kept} and {self.max_kept}")

    def _excess(self, values: Sequence[Tensor], ids: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Float[Tensor, " _"]]:
        """Score of each token's segment less the baseline."""
        return score_excess(self.score, self.baseline, values, ids, masks)

    def _check_kept(self, answers: Sequence[CreditedAnswer], weight: Sequence[Tensor], where: str) -> None:
        """Raises CreditError where a side keeps too few of its tokens, or every side nearly all; answers without a signal do not count.

        One side may be kept whole: people who mark errors leave most chosen answers unmarked. `where`: what has these settings on the command line.
        """
        sides = group_by_side(answers)
        shares = {side: _share([weight[place] for place in places], [answers[place] for place in places]) for side, places in sides.items()}
        low = min(shares, key=shares.__getitem__)
        if shares[low] < self.min_kept:
            kept = f"{shares[low]:.1%} of the tokens of {low} answers ({len(sides[low])} answers with a signal), below min_kept, {self.min_kept:.0%}"
            said = any(bool(answers[place].scored.mean.any()) for place in sides[low])
            contrary = "nearly all its token scores contradict the label, so almost no token of this side would train"
            why = contrary if said else "all its token scores are 0, which agrees with no label, so no token of this side would train"
        elif shares[low] > self.max_kept:
            each = ", ".join(f"{share:.1%} of the tokens of {side} answers ({len(sides[side])} with a signal)" for side, share in shares.items())
            kept = f"{each}, above max_kept, {self.max_kept:.0%}"
            why = "nearly all token scores agree with the label, so the credit would have no effect"
        else:
            return
        raise CreditError(
            f"the credit keeps {kept}: {why}. "
            "The usual cause is a scorer whose zero is arbitrary (a raw reward head, or one that scores every answer the same way), or spans that "
            f"mark nothing, or everything; use {where}.baseline:batch-mean, another --credit.scorer, or other spans; "
            f"if this is what you want, set --{where}.min-kept 0 --{where}.max-kept 1"
        )


def _share(weight: Sequence[Tensor], answers: Sequence[CreditedAnswer]) -> float:
    return sum(float(own.sum()) for own in weight) / sum(int(answer.mask.sum()) for answer in answers)
