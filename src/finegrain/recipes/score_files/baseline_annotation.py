"""Scores relative to a baseline: what stands beside each answer's score, and how often answers beat the baseline's sampler."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.ops.baseline import Contrast, win_share
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import mean_interval
from finegrain.recipes.score_files.baseline_table import BaselineTable, check_reward, read_table
from finegrain.types import Json

NAMED = 5
"""Answers without a baseline that are named."""
ROUNDING = 1e-5
"""Relative difference of scores that counts as a tie: the same answer in another batch, in float32 [choice]."""


class RelativeAnswer(NamedTuple):
    """One answer beside its baseline."""

    relative: float
    above: float
    """1 or 0."""
    wins: float
    """Share of the baseline's answers that score less; ties half."""


class BaselineAnnotator:
    """Adds the relative score to every answer whose prompt has a baseline, and null to the others."""

    def __init__(self, contrast: Contrast, table: BaselineTable) -> None:
        self._contrast = contrast
        self._scores = {prompt: torch.tensor(own, dtype=torch.float64) for prompt, own in table.scores.items()}
        self._found: dict[str, dict[str, list[RelativeAnswer]]] = defaultdict(lambda: defaultdict(list))
        self._missing: list[str] = []
        self._missing_prompts: set[str] = set()
        for prompt, scores in self._scores.items():
            try:
                contrast(scores[0], scores)
            except UsageError as error:
                raise UsageError(f"the prompt {prompt[:60]!r}: {error}") from error

    def __call__(self, role: str, line: Json) -> Json:
        """The line, with `relative` in its score."""
        prompt, mean = line["prompt"], line["score"]["mean"]
        scores = self._scores.get(prompt)
        if scores is None:
            self._missing.append(line["id"])
            self._missing_prompts.add(prompt)
        relative = None
        if scores is not None and mean is not None:
            reward = torch.tensor(mean, dtype=torch.float64)
            relative = float(self._contrast(reward, scores))
            bar = self._contrast.aggregate(scores)
            above = float((reward > bar) & ~_tie(reward, bar))
            wins = win_share(reward, torch.where(_tie(scores, reward), reward, scores))
            self._found[role][prompt].append(RelativeAnswer(relative, above, float(wins)))
        return {**line, "score": {**line["score"], "relative": relative}}

    def facts(self) -> Json:
        """By role the mean relative score, the share above the baseline and the share of its answers that are beaten; what has no baseline."""
        by_role = {role: _summary(list(prompts.values())) for role, prompts in self._found.items()}
        missing = {"answers": len(self._missing), "prompts": len(self._missing_prompts), "first": self._missing[:NAMED]}
        return {"relative": by_role, "without_baseline": missing}

    def describe(self) -> list[str]:
        """The same for a person."""
        lines = [
            f"{role}: relative score {_in_words(one['mean'])}, above the baseline {_in_words(one['above'])}, "
            f"beats {_in_words(one['win_rate'])} of the baseline's answers ({one['mean']['rows']} prompts)"
            for role, one in self.facts()["relative"].items()
        ]
        if self._missing:
            named = ", ".join(self._missing[:NAMED]) + (" ..." if len(self._missing) > NAMED else "")
            counted = f"{len(self._missing)} answers to {len(self._missing_prompts)} prompts"
            lines.append(f"no baseline for {counted}: their relative score is null ({named})")
        return lines


def open_annotator(file: Path, contrast: Contrast, identity: Callable[[], Json]) -> BaselineAnnotator:
    """What a table adds to scores of the reward that made it; raises UsageError where the reward is another one."""
    table = read_table(file)
    check_reward(file, table.reward, identity())
    return BaselineAnnotator(contrast, table)


def _tie(one: Tensor, other: Tensor) -> Tensor:
    return torch.isclose(one, other, rtol=ROUNDING, atol=ROUNDING)


def _summary(prompts: Sequence[Sequence[RelativeAnswer]]) -> Json:
    """Means over prompts, whose answers share a baseline and so are not independent."""

    def means(values: Callable[[RelativeAnswer], float]) -> list[float]:
        return [sum(values(answer) for answer in answers) / len(answers) for answers in prompts]

    found = {
        "mean": mean_interval(means(lambda answer: answer.relative)),
        "above": wilson(means(lambda answer: answer.above)),
        "win_rate": wilson(means(lambda answer: answer.wins)),
    }
    return {name: one.as_json() for name, one in found.items()}


def _in_words(interval: Json) -> str:
    bounds: Any = "no interval" if interval["low"] is None else f"{interval['low']:.3g} to {interval['high']:.3g}"
    return f"{interval['mean']:.3g} ({bounds})"
