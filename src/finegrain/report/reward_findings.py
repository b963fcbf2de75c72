"""Findings about a reward model from the scores of the examined pairs: order, confidence, length, uncertainty."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from finegrain.diagnose import confidence, length
from finegrain.diagnose.groups import FEWEST_ROWS, group_means
from finegrain.evaluate.calibration import Bin, EqualWidth, calibration_errors
from finegrain.evaluate.discrimination import mistakes_found
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval, mean_interval
from finegrain.report.block import Block
from finegrain.report.numbers import format_interval
from finegrain.report.pairs import ExaminedPair
from finegrain.report.read import Run

UNEQUAL = "rows of unequal lengths"
TIES = "Pairs that the labels rate as equally good are left out."
MEMORISED = "A reward model can memorise its training rows, so only held-out rows show how reliable it is."


class PairSubset(NamedTuple):
    """The pairs with two scores that are held out, or trained on."""

    name: str
    pairs: Sequence[ExaminedPair]

    @property
    def margins(self) -> np.ndarray:
        """Score of chosen minus score of rejected."""
        return np.array([pair.reward_margin for pair in self.pairs])

    @property
    def rows(self) -> np.ndarray:
        """Row of the data of each pair."""
        return np.array([pair.row for pair in self.pairs], dtype=np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """(N, 2) tokens of chosen and rejected."""
        return np.array([[int(pair.answers[role].mask.sum()) for role in ("chosen", "rejected")] for pair in self.pairs])

    @property
    def scores(self) -> np.ndarray:
        """(N, 2) scores of chosen and rejected."""
        return np.array([[pair.answers[role].score for role in ("chosen", "rejected")] for pair in self.pairs], dtype=float)

    @property
    def bins(self) -> list[Bin]:
        """Confidence and accuracy of pairs of similar confidence; the pairs of one row of the data count as one."""
        sure, right, rows = confidence.confidence(self.margins), confidence.compute_correctness(self.margins), self.rows
        place = EqualWidth()(sure)
        members = [np.flatnonzero(place == number) for number in np.unique(place)]
        return [Bin(float(group_means(sure[own], rows[own]).mean()), wilson(group_means(right[own], rows[own]))) for own in members]


def split_pairs(run: Run) -> list[PairSubset]:
    """Held-out pairs, then training pairs, where there are any with two finite scores."""
    scored = [pair for pair in run.pairs or () if np.isfinite(pair.reward_margin) and not pair.tie]
    both = [
        PairSubset("held-out", [pair for pair in scored if pair.held_out]),
        PairSubset("training", [pair for pair in scored if not pair.held_out]),
    ]
    return [part for part in both if part.pairs]


def make_reward_findings(run: Run) -> list[Block]:
    """The findings; [] for a run without scored pairs. Verdicts are on the held-out pairs where there are any."""
    found = split_pairs(run)
    if not found:
        return []
    blocks = [_order(found), _honesty(found), _length(found), _doubt(found[0])]
    return [block for block in blocks if block is not None]


def _order(found: Sequence[PairSubset]) -> Block:
    orders = [(part, confidence.assess_order(part.margins, part.rows)) for part in found]
    numbers = [format_interval(f"{part.name} pairs in order", own.accuracy, "", over="rows", share=True) for part, own in orders]
    for part in found:
        longer = np.sign(part.lengths[:, 0] - part.lengths[:, 1]).astype(float)
        by_length = confidence.assess_order(longer, part.rows).accuracy
        numbers.append(format_interval(f"{part.name} pairs in order by length alone", by_length, "", over="rows", share=True))
    margins = [(part, mean_interval(group_means(part.margins, part.rows))) for part in found]
    numbers += [format_interval(f"score difference, {part.name}", own, "", over="rows", signed=True) for part, own in margins]
    return Block(
        title="Pairs in order",
        verdict=orders[0][1].verdict,
        words=_of(found) + orders[0][1].words,
        numbers=numbers,
        notes=[
            f"Intervals: Wilson for shares, Student t for differences; the pairs of one row of the data count as one. {TIES}",
            f"{MEMORISED} No verdict on fewer than {FEWEST_ROWS} rows.",
        ],
    )


def _honesty(found: Sequence[PairSubset]) -> Block:
    own = [(part, confidence.assess_honesty(part.margins, part.rows)) for part in found]
    numbers = [format_interval(f"confidence minus accuracy, {part.name}", each.gap, "", over="rows", signed=True) for part, each in own]
    numbers += [format_interval(f"expected calibration error, {part.name}", _ece(part), "", over="rows") for part in found]
    return Block(
        title="Confidence against accuracy",
        verdict=own[0][1].verdict,
        words=_of(found) + own[0][1].words,
        numbers=numbers,
        notes=[
            "Confidence: sigma of the score difference, the probability that a Bradley-Terry model gives to the answer it prefers; the standard "
            "deviation is not used. A loss that does not fix this scale need not be honest in this sense.",
            "Expected calibration error: ten bins of equal width, bootstrap over rows of the data; it is biased upwards with few rows, so "
            f"the verdict uses the gap, with Wilson's interval of the share right. Honest: all within {confidence.NEAR} of zero ([choice]).",
        ],
    )


def _ece(part: PairSubset) -> Interval:
    """The error of all pairs, and an interval from drawing rows of the data."""
    sure, right = confidence.confidence(part.margins), confidence.compute_correctness(part.margins)
    place, gap = EqualWidth()(sure), right - sure
    own = [np.flatnonzero(part.rows == row) for row in np.unique(part.rows)]

    def error(drawn: np.ndarray) -> float:
        pairs = np.concatenate([own[row] for row in drawn])
        return float(calibration_errors(place[None, pairs], gap[None, pairs])[0])

    def errors(draws: np.ndarray) -> np.ndarray:
        pairs = np.stack(own)[draws].reshape(len(draws), -1)
        return calibration_errors(place[pairs], gap[pairs])

    if len(own) < FEWEST_ROWS:
        return Interval(error(np.arange(len(own))), None, None, len(own))
    same_size = len(set(map(len, own))) == 1
    return Bootstrap(resamples=500)(error, np.zeros(len(own), dtype=np.int64), errors if same_size else None)


def _length(found: Sequence[PairSubset]) -> Block | None:
    own = [(part, length.assess_length(part.lengths, part.scores, part.rows)) for part in found if len(part.pairs) > 1]
    if not own:
        return None
    numbers = []
    for part, each in own:
        numbers += [
            format_interval(f"rank correlation of tokens and score, {part.name}", each.correlation, "", over="rows", signed=True),
            format_interval(f"longer answer has the higher score, {part.name}", each.reward_prefers_longer, "", over=UNEQUAL, share=True),
            format_interval(f"longer answer is the chosen one, {part.name}", each.label_prefers_longer, "", over=UNEQUAL, share=True),
        ]
    return Block(
        title="Length against score",
        verdict=own[0][1].verdict,
        words=_of([part for part, _ in own]) + own[0][1].words,
        numbers=numbers,
        notes=[
            "Intervals: bootstrap over rows of the data for the correlation, Wilson for shares. Length hacking is named where the correlation is at "
            f"least {length.STRONG}, its interval is above zero, and the score prefers the longer answer more often than the labels do."
        ],
    )


def _doubt(part: PairSubset) -> Block | None:
    """Whether the standard deviation indicates wrong pairs; of the pairs of one row the first represents all."""
    _, first = np.unique(part.rows, return_index=True)
    stds, wrong = np.array([part.pairs[place].reward_margin_std for place in first]), part.margins[first] <= 0
    if not np.isfinite(stds).all():
        return None
    area = mistakes_found(~wrong, stds) if wrong.any() and not wrong.all() else Interval(float("nan"), None, None, len(wrong))
    verdict, words = confidence.assess_doubt(area, int(min(wrong.sum(), (~wrong).sum())))
    return Block(
        title="Standard deviation against mistakes",
        verdict=verdict,
        words=_of([part]) + words,
        numbers=[
            format_interval(f"chance that a wrong pair has the larger deviation, {part.name}", area, "", over="rows"),
            format_interval("deviation of the score difference, wrong pairs", mean_interval(stds[wrong]), "", over="rows"),
            format_interval("deviation of the score difference, right pairs", mean_interval(stds[~wrong]), "", over="rows"),
        ],
        notes=["0.5 is chance. Of several pairs of one row of the data only the first is used. Intervals: DeLong for the chance, Student t."],
    )


def _of(found: Sequence[PairSubset]) -> str:
    """Which pairs the verdict is about, where these are not the held-out ones."""
    return "" if found[0].name == "held-out" else "On training pairs only (none is held out): "
