"""The strength of a merge by search: every value makes a model, which is scored on held-out rows; the best mean is kept."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from finegrain.commands.merge import MergeSettings
from finegrain.data.load import load_examples
from finegrain.data.records import Shape
from finegrain.data.store import ExampleStore
from finegrain.data.tokenise import Tokenise
from finegrain.errors import DataError, NonFiniteError, UsageError
from finegrain.generate.hf import generate_greedy
from finegrain.models.load import Policy, load_policy, master_dtype
from finegrain.models.scorer import silence_dropout
from finegrain.ops.stats import mean_interval
from finegrain.recipes.prompts import DistinctPrompts, score_answers
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Reward
from finegrain.scoring.runtime import Runtime, open_runtime, policy_logps
from finegrain.scoring.sources import RewardOptions
from finegrain.terminal import write_line
from finegrain.types import Json
from finegrain.weights.blocks import MergeMethod

ROLES = ("chosen", "rejected")
BATCH = 16
"""Prompts that are answered at once."""
MUCH_LONGER = 1.2
"""Ratio of the lengths of answers from which a line says so [choice]."""
LEAST_SCORED = 0.9
"""Share of the rows scored at the start that a strength must have scores of, too [choice]."""

Build = Callable[[MergeMethod, Path], object]
"""Writes a merged model into an existing folder, with its tokenizer."""
Numbers = Mapping[str, np.ndarray]
"""(N,) by name, the score first; NaN where a row has none."""


@runtime_checkable
class ModelScore(Protocol):
    """What a model is scored by."""

    def __call__(self, policy: Policy) -> Numbers:
        """Numbers of every row."""

    def facts(self) -> Json:
        """What the record says of it."""


class SearchOutcome(NamedTuple):
    """The outcome of a search."""

    method: MergeMethod
    """With the best strength."""
    table: Json
    """For the record: what was scored, and a line for every strength."""


def search_strength(settings: MergeSettings, tokenizer: object, build: Build, folder: Path) -> SearchOutcome:
    """Scores every strength, each by a model of its own below `folder`; one without finite numbers or scores is left out, and named."""
    method = settings.method
    runtime = open_runtime(settings.device, settings.dtype)
    runtime = Runtime(runtime.device, runtime.precision, None, runtime.usage)
    measure = _open_measure(settings, runtime, tokenizer)
    trials: dict[float, Numbers] = {}
    failed: dict[float, str] = {}
    for value in sorted({*(settings.alphas or method.grid), method.start}):
        try:
            trials[value] = _score_trial(method.at(value), build, folder / "trial", measure, runtime)
        except NonFiniteError as error:
            if value == method.start:
                raise
            failed[value] = str(error)
            continue
        name, numbers = next(iter(trials[value].items()))
        write_line(f"{method.strength} {value:g}: {name} {np.nanmean(numbers) if np.isfinite(numbers).any() else np.nan:.4g}")
    failed |= find_unscored(trials, method.start)
    for value, reason in failed.items():
        trials.pop(value, None)
        write_line(f"{method.strength} {value:g} is left out: {reason}")
    best, lines = choose(trials, method.start, settings.data or "")
    for line in describe(method, best, lines, sorted(trials)):
        write_line(line)
    facts: Json = {"strength": method.strength, "best": best, "start": method.start, **measure.facts(), "tried": lines}
    if failed:
        facts["not_finite"] = [{"alpha": value, "reason": reason} for value, reason in failed.items()]
    return SearchOutcome(method.at(best), facts)


def _score_trial(method: MergeMethod, build: Build, folder: Path, measure: ModelScore, runtime: Runtime) -> Numbers:
    """The numbers of one merged model, which is written, loaded as any other, and deleted."""
    folder.mkdir()
    try:
        build(method, folder)
        policy = load_policy(str(folder), master=master_dtype(runtime.precision.name))
        silence_dropout(policy.model)
        policy.model.to(runtime.device).eval()
        return measure(policy)
    finally:
        shutil.rmtree(folder)


def find_unscored(trials: Mapping[float, Numbers], start: float) -> dict[float, str]:
    """Strengths that have too few scores of the rows that are scored at the start, and why: they would take those rows from all."""
    score = next(iter(trials[start]))
    known = np.isfinite(trials[start][score])
    counts = {value: int((np.isfinite(numbers[score]) & known).sum()) for value, numbers in trials.items()}
    reasons = {value: f"{count} of the {counts[start]} rows that are scored at {start:g} have a score" for value, count in counts.items()}
    return {value: reason for value, reason in reasons.items() if counts[value] < LEAST_SCORED * counts[start]}


def choose(trials: Mapping[float, Numbers], start: float, data: str) -> tuple[float, list[Json]]:
    """The strength of the largest mean score, of equal ones the one nearest to the start, and a line of the table for each.

    Rows without a score at some strength are left out at all of them, so that means are of the same rows; they are counted.
    """
    score = next(iter(trials[start]))
    scored = np.all([np.isfinite(numbers[score]) for numbers in trials.values()], axis=0)
    if not scored.any():
        raise DataError(f"{data}: no row has a score at every strength")
    lines: list[Json] = []
    for value, numbers in trials.items():
        gap = numbers[score][scored] - trials[start][score][scored]
        means: Json = {name: mean_interval(column[scored]).as_json() for name, column in numbers.items()}
        lines.append({"alpha": value, **means, "against_start": mean_interval(gap).as_json(), "left_out": int((~scored).sum())})
    best = max(lines, key=lambda line: (line[score]["mean"], -abs(line["alpha"] - start)))
    return float(best["alpha"]), lines


def describe(method: MergeMethod, best: float, lines: Sequence[Json], values: Sequence[float]) -> list[str]:
    """What a person should know of the choice."""
    found = next(line for line in lines if line["alpha"] == best)
    start = next(line for line in lines if line["alpha"] == method.start)
    told, gap = [f"kept: {method.strength} {best:g}"], found["against_start"]
    if best == method.start:
        told.append("no other strength scored higher than the start, so nothing is merged: the result is the start itself")
    elif gap["low"] is None:
        told.append("one row: whether the score differs from the start's cannot be said")
    else:
        words = f"{gap['mean']:+.4g} against the start, 95 % interval {gap['low']:.4g} to {gap['high']:.4g}, {gap['rows']} rows"
        told.append(f"score {words}{'; the difference may be chance' if gap['low'] <= 0 else ''}")
        told.append("the same rows chose it, so its own score is too high on average: measure the merged model on others")
    if best in (values[0], values[-1]) and best != method.start and len(set(values) - {method.start}) > 1:
        told.append(_say_end(method, best, math.inf if best == values[-1] else -math.inf))
    if "characters" in found and found["characters"]["mean"] > MUCH_LONGER * max(1.0, start["characters"]["mean"]):
        ratio = found["characters"]["mean"] / max(1.0, start["characters"]["mean"])
        told.append(f"its answers are {ratio:.2g} times as long as the start's; a reward that likes long answers would choose it for that alone")
    return told


def _say_end(method: MergeMethod, best: float, outwards: float) -> str:
    """What lies beyond a best value at an end: values that were not tried, or nothing, where the result is the second model itself."""
    try:
        method.at(math.nextafter(best, outwards))
    except UsageError:
        return f"{best:g} is the second model itself, and no mixture scored higher; method:expo goes further, with the first one as --base"
    return f"{best:g} is at the end of what was tried; the score may rise further beyond it"


def _open_measure(settings: MergeSettings, runtime: Runtime, tokenizer: object) -> ModelScore:
    assert settings.data is not None
    if settings.score_with is None:
        rows = Tokenise(max_length=settings.max_length)
        loaded = load_examples(settings.data, tokenizer, shape=Shape.PREFERENCE, settings=rows, limit=settings.limit, gate=settings.gate)
        for line in loaded.report.get("messages", []):
            write_line(line)
        return PreferenceMargins(runtime, loaded.examples, loaded.report)
    options = RewardOptions(
        runtime=lambda: runtime,
        max_length=settings.max_length,
        reference=settings.score_reference,
        reference_option="--score-reference",
        beta=settings.score_beta,
    )
    return AnswerRewards(settings, open_reward(settings.score_with, options))


class PreferenceMargins:
    """How much likelier a model makes chosen answers than rejected ones."""

    def __init__(self, runtime: Runtime, examples: ExampleStore, report: Json) -> None:
        self._runtime, self._examples, self._report = runtime, examples, report

    def __call__(self, policy: Policy) -> Numbers:
        """PreferenceMargins in nats, whether they are positive, and the chosen answer's mean negative log-likelihood per token."""
        logps = policy_logps(self._runtime, policy, self._examples, ROLES)
        sums = {role: np.array([one.sum(dtype=np.float64) for one in logps[role]]) for role in ROLES}
        counts = np.array([max(1, int(example.responses["chosen"].mask.sum())) for example in self._examples])
        margin = sums["chosen"] - sums["rejected"]
        if bad := int((~np.isfinite(margin)).sum()):
            raise NonFiniteError(f"the margins of {bad} of {len(margin)} pairs are NaN or infinite; try --dtype float32")
        return {"margin": margin, "accuracy": (margin > 0).astype(float), "chosen_nll": -sums["chosen"] / counts}

    def facts(self) -> Json:
        """That pairs decide, and which."""
        return {"scored_by": "preference margin: log pi(chosen) - log pi(rejected), nats", "data": self._report}


class AnswerRewards:
    """What a reward says of a model's own answers."""

    def __init__(self, settings: MergeSettings, reward: Reward) -> None:
        self._settings, self._reward = settings, reward
        self._report: Json = {}

    def __call__(self, policy: Policy) -> Numbers:
        """Rewards of greedy answers, and their lengths in characters."""
        prompts = DistinctPrompts(self._settings, policy.tokenizer)
        asked = list(prompts())
        if not asked:
            raise DataError(f"{self._settings.data}: no row has a prompt that can be used: {prompts.findings.in_words() or 'there are no rows'}")
        if not self._report:
            for line in prompts.messages():
                write_line(line)
        self._report = prompts.facts()
        answers: list[str] = []
        for first in range(0, len(asked), BATCH):
            part = [example.prompt for _, example in asked[first : first + BATCH]]
            answers += generate_greedy(policy.model, policy.tokenizer, part, max_new_tokens=self._settings.max_new_tokens)
        scores = score_answers(self._reward, [(question, answer) for (question, _), answer in zip(asked, answers, strict=True)])
        return {
            "reward": np.array([np.nan if score is None else score for score in scores], dtype=float),
            "characters": np.array([len(answer) for answer in answers], dtype=float),
        }

    def facts(self) -> Json:
        """Which reward, made identifiable, how many prompts, and what became of the other rows."""
        found = {"scored_by": self._settings.score_with, "reward": self._reward.identity(), "prompts": self._report.get("prompts", 0)}
        return {**found, "data": self._report}
