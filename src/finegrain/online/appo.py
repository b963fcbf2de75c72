"""Which tokens of an answer train the policy: all, or those in segments whose reward agrees with their advantage (APPO of asr).

    s_t = score of token t's segment, from its tokens' rewards;   w_t = m_t 1[s_t > b] where A_t >= 0, else m_t 1[s_t < b]
    policy loss: per answer sum_t w_t L_t / max(1, sum_t w_t), then a mean over the answers that kept something; the critic learns from all tokens

Source: https://arxiv.org/abs/2411.00809; the rule from the same team's released code (Yingshui-Tan/Equilibrate-RLHF).
Deviations: pivots, segment scores and every baseline but 0 are ours [OURS], see `credit.asr`; the critic keeps the full mask, where the released
code masks it too [OURS]; so do the leash and the entropy bonus in the loss [choice]. The code's score is the critic's value; ours is the rewards
on the tokens, after transforms and before the leash. The advantage is the one that trains, whitened or not.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.online.aggregate import Aggregate, SeqMeanTokenMean
from finegrain.ops.segment_scores import Baseline, Constant, Mean, SegmentScore, keep_mask
from finegrain.ops.segmenters import Dynamic, Segmenter

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]

NEEDS_DENSE = (
    "mask:appo compares the rewards of tokens with their advantages, and no token of these answers has a reward of its own: take credit:head, "
    "credit:prefix-difference, or a function that returns spans or numbers per token; or mask:full-mask"
)


class Agreeing(NamedTuple):
    """Tokens that train the policy."""

    keep: Mask
    facts: dict[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FullMask:
    """All tokens of an answer train."""


@dataclass(frozen=True, kw_only=True)
@checked
class APPO:
    """Tokens whose segment's reward agrees with the sign of their advantage train the policy; rewards on tokens are needed."""

    segmenter: Segmenter = field(default_factory=Dynamic)
    """Where segments begin; `tokens` is the released code's rule."""
    score: SegmentScore = field(default_factory=Mean)
    """Score of a segment from its tokens' rewards."""
    baseline: Baseline = field(default_factory=Constant)
    """What it must exceed where the advantage is at least 0, and stay below elsewhere."""
    aggregate: Aggregate = field(default_factory=SeqMeanTokenMean)
    """How losses of tokens are averaged, in place of the algorithm's own."""

    def __call__(self, rewards: Values, advantage: Values, live: Mask) -> Agreeing:
        """Tokens that are kept among those that train (`live`), and numbers to log."""
        ids = self.segmenter(torch.where(live, rewards, 0.0), live)
        scores = self.score(torch.where(live, rewards, 0.0), ids)
        rows = live.any(1)
        base = torch.zeros(len(live), 1, dtype=scores.dtype)
        if rows.any():
            base[rows, 0] = torch.tensor(self.baseline([own[mask] for own, mask in zip(scores[rows], live[rows], strict=True)]), dtype=scores.dtype)
        keep = keep_mask(scores, live, advantage >= 0, base)
        return Agreeing(keep, _facts(keep, live, advantage >= 0, ids), _warnings(keep, live))


TokenMask = FullMask | APPO


def _facts(keep: Mask, live: Mask, up: Mask, ids: Tensor) -> dict[str, float]:
    """Kept shares of the tokens by the sign of their advantage, segments of an answer, and the share of answers of which nothing is kept."""
    answers = live.any(1)
    shares = {"mask/kept": live, "mask/kept_up": live & up, "mask/kept_down": live & ~up}
    found = {name: float(keep[which].double().mean()) for name, which in shares.items() if which.any()}
    if answers.any():
        found["mask/segments"] = float((ids[answers].max(1).values + 1).double().mean())
        found["mask/dropped"] = float((~keep[answers].any(1)).double().mean())
    return found


def _warnings(keep: Mask, live: Mask) -> tuple[str, ...]:
    if not live.any() or 0.05 <= float(keep[live].double().mean()) <= 0.95:
        return ()
    return (
        "mask:appo keeps fewer than 5 or more than 95 of 100 tokens of a buffer: where the zero of the token rewards is arbitrary, take "
        "mask.baseline:batch-mean or mask.baseline:response-mean",
    )
