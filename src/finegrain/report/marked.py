"""The verdict on a reward model's token scores: whether they find what annotators marked in held-out answers, beyond what the place tells."""

from collections.abc import Mapping

from finegrain.diagnose import confidence
from finegrain.diagnose.groups import FEWEST_ROWS
from finegrain.evaluate.marked_tokens import PLACE, read_marks
from finegrain.ops.stats import Interval
from finegrain.report.block import Block
from finegrain.report.numbers import format_interval
from finegrain.report.read import Run
from finegrain.report.visible import clip_text

NAMES = {
    "auroc": "area under the ROC curve, all tokens",
    "auroc_within": "the same within answers",
    "average_precision": "average precision",
    "marked": "share of tokens that are marked",
    "ece": "expected calibration error",
}
MOST_OF_AN_ASPECT = 60
"""Maximum number of characters of an aspect's name."""
WORDS = {
    confidence.RANKS: "On held-out answers, token scores find what annotators marked, better than the place in the answer alone.",
    confidence.REVERSED: "On held-out answers, token scores are on the wrong side of what annotators marked; check the signs of the spans.",
    confidence.GUESSES: "On held-out answers, token scores do not find what annotators marked better than the place in the answer alone.",
}


def report_marked(run: Run) -> Block | None:
    """The block; None for a run without held-out annotated answers."""
    found = read_marks(run.record.evaluation) if isinstance(run.record.evaluation, Mapping) else {}
    if "auroc" not in found:
        return None
    verdict = _verdict(found["auroc"], found.get(f"auroc_{PLACE}"))
    return Block(
        title="Marked tokens",
        verdict=verdict,
        words=WORDS[verdict],
        numbers=[format_interval(_title(name), interval, "", over="answers") for name, interval in found.items() if _title(name)],
        notes=[
            "Positives: tokens that at least half of the annotators marked; negatives: the other tokens of annotated answers. The area is 0.5 by "
            "chance, average precision the share that is marked. Within answers: mean over answers that have both kinds.",
            "Intervals: bootstrap over answers. The verdict asks that the area's interval is above 0.5 and above the area of the relative place in "
            f"the answer; there is none on fewer than {FEWEST_ROWS} answers. Calibration: of the probability that a token is good, in ten bins.",
        ],
    )


def _verdict(area: Interval, place: Interval | None) -> str:
    if area.low is None or area.high is None or area.rows < FEWEST_ROWS:
        return confidence.GUESSES
    floor = max(0.5, 0.5 if place is None else place.mean)
    return confidence.RANKS if area.low > floor else confidence.REVERSED if area.high < 0.5 else confidence.GUESSES


def _title(name: str) -> str:
    """A result's name in words; empty for one that is not shown."""
    base, _, aspect = name.partition("/")
    by_place = base.endswith(f"_{PLACE}")
    words = NAMES.get(base.removesuffix(f"_{PLACE}"), "")
    if not words:
        return ""
    return words + (f", {clip_text(aspect, MOST_OF_AN_ASPECT)}" if aspect else "") + (f", {PLACE} alone" if by_place else "")
