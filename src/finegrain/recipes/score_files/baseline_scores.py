"""`finegrain score baseline`: scores of the answers of a fixed sampler (samples, chosen answers of pairs, demonstrations), prompt by prompt."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from finegrain.commands.baseline import BaselineSettings
from finegrain.data.questions import Questions
from finegrain.data.records import Shape, Text
from finegrain.errors import DataError, UsageError
from finegrain.files import write_new
from finegrain.ops.aggregate import aggregate_answer
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.score_files.answers import are_samples, read_answers, read_samples
from finegrain.recipes.score_files.baseline_table import BaselineTable, identify_reward, table_lines
from finegrain.runs import check_free
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Reward, score_with_candidates
from finegrain.scoring.runtime import open_runtime
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.tokens import map_each
from finegrain.terminal import write_line
from finegrain.types import Json

ROLES = {Shape.PREFERENCE: "chosen", Shape.DEMONSTRATION: "answer"}
"""The answer of a row that is the baseline, by what the rows serve."""


class FirstOccurrence:
    """Tells a row's first example of an answer from later ones: one answer may be chosen in several pairs of its row. Rows come in order."""

    def __init__(self) -> None:
        self._row = -1
        self._seen: set[Text] = set()
        self.repeated = 0

    def __call__(self, row: int, answer: Text) -> bool:
        """Whether the answer is new in its row."""
        if row != self._row:
            self._row, self._seen = row, set()
        new = answer not in self._seen
        self._seen.add(answer)
        self.repeated += not new
        return new


@dataclass
class BaselineCounts:
    """What the result says beside the file."""

    answers: int = 0
    truncated: int = 0
    unscored: int = 0
    """Answers that the reward does not score."""
    first: FirstOccurrence = field(default_factory=FirstOccurrence)
    facts: Json = field(default_factory=dict)

    def tell(self, report: Json) -> None:
        """What was read and found, to the person and for the result."""
        self.facts |= {name: report[name] for name in ("rows", "findings")}
        for message in report["messages"]:
            write_line(message)

    def as_json(self) -> Json:
        """For stdout."""
        seen = {"answers": self.answers, "truncated": self.truncated, "unscored": self.unscored, "repeated": self.first.repeated}
        return {**seen, **self.facts}


def run_baseline(settings: BaselineSettings) -> dict[str, Any]:
    """Write the table, complete or not at all; returns the counts."""
    check_free(settings.out, settings.data)
    quiet_transformers()
    counts = BaselineCounts()
    table = BaselineTable(*score_baseline(settings, counts))
    write_new(settings.out, table_lines(table))
    return {"out": str(settings.out), "prompts": len(table.scores), **counts.as_json(), **table.spread()}


def score_baseline(settings: BaselineSettings, counts: BaselineCounts) -> tuple[Json, dict[str, list[float]]]:
    """The reward's identity, and by prompt its scores of the baseline's answers."""
    source = settings.model if settings.reward is None else settings.reward
    assert source is not None
    reward = open_reward(source, RewardOptions(runtime=partial(open_runtime, settings.device, settings.dtype), max_length=settings.max_length))
    identity = identify_reward(reward, settings.aggregate)
    scores: dict[str, list[float]] = {}
    for prompt, score in _scored(settings, reward, counts):
        counts.answers += 1
        scores.setdefault(prompt, []).append(score)
    if not scores:
        raise DataError(f"{settings.data}: no answer was scored ({counts.unscored} were not judged), so there is no baseline")
    return identity, scores


def _scored(settings: BaselineSettings, reward: Reward, counts: BaselineCounts) -> Iterator[tuple[str, float]]:
    """Prompt as the reward reads it, and the score of an answer to it."""
    source, limit = settings.data, settings.limit
    sampled = are_samples(source, limit)
    if sampled:
        answers = read_samples(source, limit, reward, settings.max_length, counts.tell)
    else:
        questions = Questions(source, limit)
        if questions.shape not in ROLES:
            raise UsageError(
                f"{source} holds {questions.shape.value} rows, whose answers are good and bad alike; "
                "a baseline is of samples {prompt, responses}, of pairs (the chosen answer) or of demonstrations"
            )
        role = ROLES[questions.shape]
        given = read_answers(questions, limit, reward, settings.max_length, counts.tell)
        answers = map_each(given, lambda one: one.taking({role: role}))
    for one, found in score_with_candidates(reward, answers):
        for role in one.roles:
            scores = found[role]
            if not sampled and not counts.first(one.row, one.answer_text(role)):
                continue
            if scores is None:
                counts.unscored += 1
                continue
            counts.truncated += scores.truncated
            yield one.prompt_text, aggregate_answer(settings.aggregate, scores.answer)
