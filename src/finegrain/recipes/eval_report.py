"""The numbers of `finegrain eval`: lines of the suite beside their baselines, calibration, batches, and warnings in words."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finegrain.data.findings import Findings
from finegrain.errors import DataError, UsageError
from finegrain.evaluate.calibration import Calibration, pair_calibration
from finegrain.evaluate.discrimination import mistakes_found
from finegrain.evaluate.ensemble import ensemble
from finegrain.evaluate.prompt_blind import prompt_blind_scores
from finegrain.evaluate.suites import Item, Scores, compared
from finegrain.evaluate.tables import Line, shown
from finegrain.ops.stats import Interval
from finegrain.recipes.eval import Eval
from finegrain.recipes.frozen import open_means
from finegrain.recipes.function_file import is_function
from finegrain.recipes.grades import FunctionGrader, Grade, Grader, ModelGrader
from finegrain.recipes.judges import open_policies
from finegrain.recipes.problems import Problem, ProblemSet, read_problems
from finegrain.recipes.reward_judge import open_reward_model
from finegrain.recipes.settings import Common
from finegrain.recipes.user_reward import open_function
from finegrain.report.visible import visible
from finegrain.types import Json

SAMPLE = 16
"""Problems scored again in other batches."""
VISIBLE_DIFFERENCE = 1e-3
"""[choice] Share of the scores' standard deviation from which a difference between batches is worth a warning."""


def measure(settings: Eval) -> tuple[Json, list[Json]]:
    """The result, and every problem's scores."""
    problems = read_problems(settings.data, settings.limit)
    grades, batches, read = _graded(settings, problems)
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
    good, bad = compared(items, scores)
    result: Json = {
        "reward": list(settings.reward),
        "reference": settings.reference,
        "data": settings.data,
        "format": problems.name,
        "problems": len(kept),
        "lines": [_line(line, beside, reasons) for line in lines],
        "tied": int((good == bad).sum()),
        "compared": len(good),
        "calibration": _calibration(pair_calibration(good, bad)) if len(good) else None,
        "mistakes_auroc": _mistakes(items, found),
        "batches": batches,
        "read": read,
        "dropped": problems.findings.dropped(),
        "truncated": problems.findings.count("answer_truncated"),
    }
    result["warnings"] = _warnings(result, scores)
    told = zip(items, scores, strict=True)
    return result, [{"id": item.name, "subset": item.subset, "right": item.right, "scores": values.tolist()} for item, values in told]


def _graded(settings: Eval, problems: ProblemSet) -> tuple[list[Grade | None], Json, list[Json]]:
    """A grade per problem, of several rewards the combined one; the largest difference between batches; how each reward found segments or steps."""
    members: list[list[Grade | None]] = []
    differences: list[Json] = []
    read: list[Json] = []
    for grader in _graders(settings):
        grades = grader(problems.problems, problems.findings)
        members.append(grades)
        read.append(grader.facts())
        for line in grader.words():
            print(visible(line), file=sys.stderr, flush=True)
        differences.append(_batches(grader, problems.problems, grades))
    if len(members) == 1:
        return members[0], differences[0], read
    batches = max(differences, key=lambda one: one["largest_difference"] or 0.0)
    return _combined(members, [one.item for one in problems.problems], settings), batches, read


def _graders(settings: Eval) -> Sequence[Grader]:
    """One per reward; policies against a reference are one, whose mean is theirs."""
    common = Common(max_length=settings.max_length, device=settings.device, dtype=settings.dtype)
    if settings.reference is not None:
        if any(is_function(source) for source in settings.reward):
            raise UsageError("--reference is for policies; a function of your own has none")
        return [ModelGrader(open_policies(open_means(common), settings.reward, settings.reference, settings.beta), settings.max_length)]
    return [
        FunctionGrader(open_function(source))
        if is_function(source)
        else ModelGrader(open_reward_model(open_means(common), source, longest=settings.max_length), settings.max_length)
        for source in settings.reward
    ]


def _combined(members: Sequence[Sequence[Grade | None]], items: Sequence[Item], settings: Eval) -> list[Grade | None]:
    """Members standardised over all answers, then combined."""
    kept = [place for place in range(len(items)) if all(grades[place] is not None for grades in members)]
    if not kept:
        return [None] * len(items)
    sides: list[np.ndarray] = []
    for part in (lambda place: slice(0, items[place].right), lambda place: slice(items[place].right, None)):
        rows = [[grade.means[part(place)] for place in kept if (grade := grades[place]) is not None] for grades in members]
        sides.append(np.stack([np.concatenate(own) for own in rows]))
    good, bad = ensemble(sides[0], sides[1], settings.combiner)
    found: list[Grade | None] = [None] * len(items)
    at_good = at_bad = 0
    for place in kept:
        right, wrong = items[place].right, len(items[place].lengths) - items[place].right
        found[place] = Grade(np.concatenate([good[at_good : at_good + right], bad[at_bad : at_bad + wrong]]), None)
        at_good, at_bad = at_good + right, at_bad + wrong
    return found


def _batches(grader: Grader, problems: Sequence[Problem], grades: Sequence[Grade | None]) -> Json:
    """Largest difference of a score between the batches of the table and others."""
    kept = [place for place, grade in enumerate(grades) if grade is not None]
    sample = [kept[index] for index in np.unique(np.linspace(0, len(kept) - 1, min(SAMPLE, len(kept))).astype(int))] if kept else []
    before = {place: grade.means for place in sample if (grade := grades[place]) is not None}
    largest = None
    for other in grader.other_batches() if sample else ():
        again = other([problems[place] for place in sample], Findings())
        found = [float(np.abs(grade.means - before[place]).max()) for place, grade in zip(sample, again, strict=True) if grade is not None]
        largest = max([*found, largest or 0.0])
    return {"problems": len(sample), "largest_difference": largest}


def _length_only(items: Sequence[Item]) -> Scores:
    return [np.array(item.lengths, dtype=float) for item in items]


def _prompt_blind(problems: Sequence[Problem]) -> Scores | str:
    return prompt_blind_scores([one.prompt for one in problems], [one.answers for one in problems], [one.item.right for one in problems])


def _by_name(problems: ProblemSet, items: Sequence[Item], scores: Scores, settings: Eval) -> dict[str, Interval]:
    return {line.name: line.share for line in problems.suite(items, scores, settings.ties)}


def _line(line: Line, beside: dict[str, dict[str, Interval]], reasons: dict[str, str]) -> Json:
    baselines = {name: _interval(found[line.name]) for name, found in beside.items()} | dict(reasons)
    return {"name": line.name, "accuracy": _interval(line.share), **baselines, "note": line.note}


def _interval(share: Interval) -> Json:
    return {"mean": share.mean, "low": share.low, "high": share.high, "rows": share.rows}


def _calibration(found: Calibration) -> Json:
    bins = [{"confidence": one.confidence, "accuracy": _interval(one.accuracy)} for one in found.bins]
    numbers = {"ece": found.error, "nll": found.negative_log_likelihood, "brier": found.brier}
    return {**{name: _interval(share) for name, share in numbers.items()}, "bins": bins}


def _mistakes(items: Sequence[Item], grades: Sequence[Grade]) -> Json | None:
    """How well the standard deviation of a pair tells wrong from right, where it is known; None else, and where all or none are right."""
    stds = [grade.stds for grade in grades]
    if any(one is None for one in stds):
        return None
    good, bad = compared(items, [grade.means for grade in grades])
    squares = compared(items, [one**2 for one in stds if one is not None])
    correct = good > bad
    return _interval(mistakes_found(correct, np.sqrt(squares[0] + squares[1]))) if correct.any() and not correct.all() else None


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


def print_table(result: Json) -> None:
    """For a person, on stderr."""
    table = Table(title=escape(visible(f"{', '.join(result['reward'])} on {result['data']}: {result['format']}, {result['problems']} prompts")))
    for column in ("", "accuracy [95 %]", "length only", "prompt-blind", ""):
        table.add_column(column, no_wrap=column != "")
    for line in result["lines"]:
        cells = (visible(line["name"]), _cell(line["accuracy"]), _cell(line["length_only"]), _cell(line["prompt_blind"]), visible(line["note"]))
        table.add_row(*map(escape, cells))
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 140)
    console.print(table)
    for text in _words(result):
        console.print(escape(text))


def _cell(share: Any) -> str:
    """An interval, or a dash for a baseline that was not fitted."""
    return "-" if isinstance(share, str) else shown(Interval(**share))


def _words(result: Json) -> list[str]:
    lines = [f"warning: {visible(text)}" for text in result["warnings"]]
    calibration = result["calibration"]
    if calibration is not None:
        lines.append(f"calibration error {shown(Interval(**calibration['ece']))}, nll {shown(Interval(**calibration['nll']))} nats")
    batches = result["batches"]
    if batches["largest_difference"] is not None:
        lines.append(f"{batches['problems']} prompts scored again in other batches: largest difference {batches['largest_difference']:.2g}")
    blind = result["lines"][0]["prompt_blind"]
    return [*lines, f"prompt-blind: not fitted, {blind}"] if isinstance(blind, str) else lines
