"""How well scores of tokens find what annotators marked in held-out answers, with intervals over answers and the floor that reads places alone.

Positives are tokens that at least half of the annotators marked, negatives the other tokens of annotated answers; where marks are errors, a low
score finds them. The spans of an aspect are compared with the tokens that nobody marked. The area within answers is the mean over answers that
have both kinds.
Source: ours [OURS]; area and average precision as in scikit-learn, whose values they equal.
Deviations: intervals are percentile bootstraps over answers, since tokens of one answer are not independent.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from finegrain.evaluate.calibration import EqualWidth
from finegrain.evaluate.tables import format_share
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.stats import Interval, count_below

Numbers = Float[np.ndarray, " T"]
Kinds = Bool[np.ndarray, " N"]
Weights = Float[np.ndarray, " N"]
PLACE = "place"
RECORDED = "eval_token_"
"""Before the name of a result in a run's record."""


Draw = Callable[[Callable[[Int[np.ndarray, " _"]], float], Int[np.ndarray, " _"]], Interval]
"""From a number of the drawn answers, and the stratum of each answer, to the number of all with its interval."""


class MarkedAnswer(NamedTuple):
    """An annotated answer's tokens that train, with their scores."""

    scores: Numbers
    """Higher is better."""
    marks: Numbers
    """How annotators marked each token, on average: -1 all as bad, 1 all as good, 0 none."""
    probabilities: Numbers | None = None
    """That each token is good, where the scores say that."""
    by_aspect: Mapping[str, Numbers] = {}
    """The same as `marks`, of the spans of each aspect."""
    aspect_scores: Mapping[str, Numbers] = {}
    """Scores of the aspects that have their own; `scores` count for others."""


class _Tokens(NamedTuple):
    """The tokens of some answers, one after the other, ordered from the likeliest positive on."""

    answer: Int[np.ndarray, " N"]
    """Which answer each is of."""
    positive: Kinds
    last: Kinds
    """True on the last token of each score."""
    answers: int
    within: Float[np.ndarray, " A"]
    """The area of each answer, NaN where it lacks a kind."""


def measure_marks(answers: Sequence[MarkedAnswer], bootstrap: Bootstrap | None = None) -> dict[str, Interval]:
    """Results by name, with intervals where there is a bootstrap; {} where the annotated answers have no marked or no other token."""
    draw = bootstrap or _no_interval
    sign = float(np.sign(sum(own.marks.sum() for own in answers))) or -1.0
    marked = [_is_marked(own.marks, sign) for own in answers]
    if not any(own.any() for own in marked) or all(own.all() for own in marked):
        return {}
    found: dict[str, Interval] = {}
    for name, likely in (("", [sign * own.scores for own in answers]), (f"_{PLACE}", [_places(own.scores) for own in answers])):
        tokens = _ordered(likely, marked)
        found |= {f"auroc{name}": _area(tokens, draw), f"auroc_within{name}": _mean_within(tokens, draw)}
        found[f"average_precision{name}"] = draw(_statistic(_precision, tokens), _one_stratum(tokens))
    found["marked"] = _share(marked, draw)
    if all(own.probabilities is not None for own in answers):
        found["ece"] = _calibration_error([own.probabilities for own in answers if own.probabilities is not None], marked, sign, draw)
    for aspect in sorted({name for own in answers for name in own.by_aspect}):
        found |= {f"{name}/{aspect}": interval for name, interval in _of_aspect(answers, marked, aspect, sign, draw).items()}
    return {name: interval for name, interval in found.items() if math.isfinite(interval.mean)}


def read_marks(results: Mapping[str, object]) -> dict[str, Interval]:
    """The results back from the held-out results of a run, which stand there as `eval_token_<name>`; what holds no number is left out."""
    found = {}
    for name, record in results.items():
        if name.startswith(RECORDED) and isinstance(record, Mapping) and isinstance(record.get("mean"), float):
            found[name.removeprefix(RECORDED)] = Interval(record["mean"], record.get("low"), record.get("high"), record.get("rows", 0))
    return found


def describe_marks(found: Mapping[str, Interval]) -> list[str]:
    """The results for a person, a line for all marks and one for each aspect; [] without any."""
    if not found:
        return []
    lines = []
    for aspect in dict.fromkeys(name.partition("/")[2] for name in found):
        own = {name.partition("/")[0]: interval for name, interval in found.items() if name.partition("/")[2] == aspect}
        parts = [
            f"{words} {format_share(own[name])} ({PLACE} alone {format_share(own[f'{name}_{PLACE}'])})"
            for name, words in (("auroc", "AUROC"), ("auroc_within", "within answers"), ("average_precision", "average precision"))
            if name in own
        ]
        parts += [f"{words} {format_share(own[name])}" for name, words in (("ece", "calibration error"), ("marked", "share marked")) if name in own]
        if parts:
            lines.append(f"tokens marked{f' as {aspect}' if aspect else ''}: {', '.join(parts)}")
    return lines


def _no_interval(statistic: Callable[[Int[np.ndarray, " _"]], float], strata: Int[np.ndarray, " _"]) -> Interval:
    """The number alone."""
    return Interval(statistic(np.arange(len(strata))) if len(strata) else math.nan, None, None, len(strata))


def _of_aspect(answers: Sequence[MarkedAnswer], marked: Sequence[Kinds], aspect: str, sign: float, draw: Draw) -> dict[str, Interval]:
    """Tokens that spans of the aspect mark, against those that no span marks."""
    own = [_is_marked(one.by_aspect.get(aspect, np.zeros(len(one.marks))), sign) for one in answers]
    kept = [mine | ~any_mark for mine, any_mark in zip(own, marked, strict=True)]
    scores = [sign * one.aspect_scores.get(aspect, one.scores)[keep] for one, keep in zip(answers, kept, strict=True)]
    positive = [mine[keep] for mine, keep in zip(own, kept, strict=True)]
    if not any(mine.any() for mine in positive) or all(mine.all() for mine in positive):
        return {}
    places = [_places(one.scores)[keep] for one, keep in zip(answers, kept, strict=True)]
    found: dict[str, Interval] = {}
    for name, likely in (("", scores), (f"_{PLACE}", places)):
        tokens = _ordered(likely, positive)
        found |= {f"auroc{name}": _area(tokens, draw), f"auroc_within{name}": _mean_within(tokens, draw)}
    return found


def _is_marked(marks: Numbers, sign: float) -> Bool[np.ndarray, " T"]:
    """Whether at least half of the annotators marked a token, with the sign that marks have in these answers."""
    return np.asarray(marks * sign >= 0.5)


def _places(like: Numbers) -> Numbers:
    """The relative place of each token in its answer, from 0 to 1."""
    return np.arange(len(like)) / max(1, len(like) - 1)


def _ordered(likely: Sequence[Numbers], positive: Sequence[Kinds]) -> _Tokens:
    scores, kinds = np.concatenate(likely), np.concatenate(positive)
    answer = np.repeat(np.arange(len(likely)), [len(own) for own in likely])
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    within = np.array([_plain_area(own, kind) for own, kind in zip(likely, positive, strict=True)])
    return _Tokens(answer[order], kinds[order], last, len(likely), within)


def _plain_area(likely: Numbers, positive: Kinds) -> float:
    """The area of one answer; NaN without both kinds."""
    good, bad = likely[positive], likely[~positive]
    return float(count_below(good, bad).mean() / len(bad)) if len(good) and len(bad) else math.nan


def _one_stratum(tokens: _Tokens) -> Int[np.ndarray, " A"]:
    return np.zeros(tokens.answers, dtype=int)


def _statistic(number: Callable[[_Tokens, Weights], float], tokens: _Tokens) -> Callable[[Int[np.ndarray, " _"]], float]:
    """A number of the drawn answers: their tokens count as often as they were drawn."""
    return lambda drawn: number(tokens, np.bincount(drawn, minlength=tokens.answers).astype(float)[tokens.answer])


def _area(tokens: _Tokens, draw: Draw) -> Interval:
    """The area over all tokens together."""
    return draw(_statistic(_weighted_area, tokens), _one_stratum(tokens))


def _weighted_area(tokens: _Tokens, weights: Weights) -> float:
    """Chance that a positive stands before a negative, ties counted half; NaN without both."""
    good, bad = _sums(tokens, weights)
    if not good[-1] or not bad[-1]:
        return math.nan
    return float((np.diff(good, prepend=0.0) * (bad[-1] - (bad + np.append(0.0, bad[:-1])) / 2)).sum() / (good[-1] * bad[-1]))


def _precision(tokens: _Tokens, weights: Weights) -> float:
    """Mean over positives of the share of positives among the tokens that score as high; NaN without a positive."""
    good, bad = _sums(tokens, weights)
    if not good[-1]:
        return math.nan
    return float((np.diff(good, prepend=0.0) * good / np.maximum(good + bad, 1e-300)).sum() / good[-1])


def _sums(tokens: _Tokens, weights: Weights) -> tuple[Float[np.ndarray, " S"], Float[np.ndarray, " S"]]:
    """Weight of the positives, and of the negatives, down to each score."""
    good, bad = np.where(tokens.positive, weights, 0.0).cumsum(), np.where(tokens.positive, 0.0, weights).cumsum()
    return good[tokens.last], bad[tokens.last]


def _mean_within(tokens: _Tokens, draw: Draw) -> Interval:
    """The mean area of the answers that have both kinds."""
    areas = tokens.within[~np.isnan(tokens.within)]
    return draw(lambda drawn: float(areas[drawn].mean()), np.zeros(len(areas), dtype=int))


def _share(marked: Sequence[Kinds], draw: Draw) -> Interval:
    """The share of marked tokens, which is the average precision of a score that knows nothing."""
    counts = np.array([(own.sum(), len(own)) for own in marked], dtype=float)
    return draw(lambda drawn: float(counts[drawn, 0].sum() / counts[drawn, 1].sum()), np.zeros(len(counts), dtype=int))


def _calibration_error(probabilities: Sequence[Numbers], marked: Sequence[Kinds], sign: float, draw: Draw) -> Interval:
    """Expected calibration error of the probability that a token is good, in ten bins of equal width."""
    binning = EqualWidth(low=0.0)
    sums = np.zeros((len(marked), binning.bins))
    tokens = np.array([len(own) for own in marked], dtype=float)
    for row, (own, kinds) in enumerate(zip(probabilities, marked, strict=True)):
        good = (kinds if sign > 0 else ~kinds).astype(float)
        sums[row] = np.bincount(binning(own), weights=good - own, minlength=binning.bins)
    return draw(lambda drawn: float(np.abs(sums[drawn].sum(0)).sum() / tokens[drawn].sum()), np.zeros(len(marked), dtype=int))
