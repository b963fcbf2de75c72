"""The numbers of `finegrain eval`: lines of the suite beside their baselines, calibration, batches, and warnings in words."""

from collections.abc import Sequence

import numpy as np

from finegrain.commands.eval import EvalSettings
from finegrain.configure import to_json
from finegrain.errors import DataError
from finegrain.evaluate.calibration import Calibration, pair_calibration
from finegrain.evaluate.discrimination import mistakes_found
from finegrain.evaluate.marked_tokens import measure_marks
from finegrain.evaluate.prompt_blind import prompt_blind_scores
from finegrain.evaluate.suites import Item, Scores, compare_answers
from finegrain.evaluate.tables import Line
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.stats import Interval
from finegrain.recipes.evaluation.grades import Grade
from finegrain.recipes.evaluation.grading import grade_set
from finegrain.recipes.evaluation.problems import Problem, ProblemSet, read_problems
from finegrain.types import Json

VISIBLE_DIFFERENCE = 1e-3
"""[choice] Share of the scores' standard deviation from which a difference between batches is worth a warning."""


def measure(settings: EvalSettings) -> tuple[Json, list[Json]]:
    """The result, and every problem's scores."""
    problems = read_problems(settings.data, settings.limit)
    grades, batches, read = grade_set(settings, problems)
    kept = [place for place, grade in enumerate(grades) if grade is not None]
    if not kept:
        raise DataError(f"{settings.data}: no problem could be scored; {problems.findings.in_words()}")
    chosen = [problems.problems[place] for place in kept]
    found = [grade for grade in grades if grade is not None]
    items, scores = [one.item for one in chosen], [grade.means for grade in found]
    baselines = {"length_only": _length_only(items), "prompt_blind": _prompt_blind(chosen)}
    reasons = {name: told for name, told in baselines.items() if isinstance(told, str)}
    beside = {name: _by_name(problems, items, told, settings) for name, told in baselines.items() if not isinstance(told, str)}
    lines = problems.suite(items, scores, settings.ties)
    good, bad = compare_answers(items, scores)
    result: Json = {
        "reward": list(settings.reward),
        "reference": settings.reference,
        "reference_free": settings.reference_free,
        "aggregate": to_json(settings)["aggregate"],
        "data": settings.data,
        "format": problems.name,
        "problems": len(kept),
        "lines": [_line(line, beside, reasons) for line in lines],
        "tied": int((good == bad).sum()),
        "compared": len(good),
        "calibration": _calibration(pair_calibration(good, bad)) if len(good) else None,
        "mistakes_auroc": _mistakes(items, found),
        "attributes": _attributes(problems, items, found, settings),
        "marked_tokens": {name: share.as_json() for name, share in measure_marks([mark for one in found for mark in one.marks], Bootstrap()).items()},
        "batches": batches,
        "read": read,
        "dropped": problems.findings.dropped(),
        "truncated": problems.findings.count("answer_truncated"),
    }
    result["warnings"] = _warnings(result, scores)
    told = zip(items, scores, strict=True)
    return result, [{"id": item.name, "subset": item.subset, "right": item.right, "scores": values.tolist()} for item, values in told]


def _length_only(items: Sequence[Item]) -> Scores:
    return [np.array(item.lengths, dtype=float) for item in items]


def _prompt_blind(problems: Sequence[Problem]) -> Scores | str:
    return prompt_blind_scores([one.prompt for one in problems], [one.answers for one in problems], [one.item.right for one in problems])


def _attributes(problems: ProblemSet, items: Sequence[Item], grades: Sequence[Grade], settings: EvalSettings) -> Json:
    """How often each attribute alone is right, line by line of the suite; {} for a reward without attributes."""
    return {
        name: {line: share.as_json() for line, share in _by_name(problems, items, [one.attributes[name] for one in grades], settings).items()}
        for name in grades[0].attributes
    }


def _by_name(problems: ProblemSet, items: Sequence[Item], scores: Scores, settings: EvalSettings) -> dict[str, Interval]:
    return {line.name: line.share for line in problems.suite(items, scores, settings.ties)}


def _line(line: Line, beside: dict[str, dict[str, Interval]], reasons: dict[str, str]) -> Json:
    baselines = {name: found[line.name].as_json() for name, found in beside.items()} | dict(reasons)
    return {"name": line.name, "accuracy": line.share.as_json(), **baselines, "note": line.note}


def _calibration(found: Calibration) -> Json:
    bins = [{"confidence": one.confidence, "accuracy": one.accuracy.as_json()} for one in found.bins]
    numbers = {"ece": found.error, "nll": found.negative_log_likelihood, "brier": found.brier}
    return {**{name: share.as_json() for name, share in numbers.items()}, "bins": bins}


def _mistakes(items: Sequence[Item], grades: Sequence[Grade]) -> Json | None:
    """How well the standard deviation of a pair tells wrong from right, where it is known; None else, and where all or none are right."""
    stds = [grade.stds for grade in grades]
    if any(one is None for one in stds):
        return None
    good, bad = compare_answers(items, [grade.means for grade in grades])
    squares = compare_answers(items, [one**2 for one in stds if one is not None])
    correct = good > bad
    return mistakes_found(correct, np.sqrt(squares[0] + squares[1])).as_json() if correct.any() and not correct.all() else None


def _warnings(result: Json, scores: Scores) -> list[str]:
    """What a reader of the accuracy must know."""
    every = np.concatenate(scores)
    spread = float(every.std())
    found = []
    if spread == 0:
        reason = "; policy and reference say the same: are they the same model?" if result["reference"] else ""
        found.append(f"every answer has the same score, {every[0]:.6g}: it tells nothing apart{reason}")
    elif result["tied"]:
        found.append(f"{result['tied']} of {result['compared']} comparisons are ties; half precision makes them")
    if result["truncated"]:
        found.append(f"{result['truncated']} problems have answers cut at --max-length")
    if result["dropped"]:
        found.append(f"not scored: {', '.join(f'{count} {kind}' for kind, count in result['dropped'].items())}")
    difference = result["batches"]["largest_difference"]
    if difference and difference > VISIBLE_DIFFERENCE * spread:
        found.append(f"scores depend on the batch: they differ by up to {difference:.2g}, of a standard deviation of {spread:.2g}")
    first = result["lines"][0]
    for name, words in (("length_only", "the number of characters"), ("prompt_blind", "the answers' words without their prompts")):
        if isinstance(first[name], dict) and first[name]["mean"] >= first["accuracy"]["mean"]:
            found.append(f"{words} alone reach {first[name]['mean']:.3f}, no less than this reward")
    return found
