"""What the demo reads along the training path: true quality of sampled answers, distance from the base, displacement, credit."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from finegrain.data.planted import World
from finegrain.data.records import Example
from finegrain.data.spans import spans_to_tokens
from finegrain.evaluate.discrimination import auroc
from finegrain.generate.hf import sample_answers
from finegrain.models.packing import Branch, Group
from finegrain.models.score import Precision, score_rows, split_by_budget
from finegrain.models.scorer import Request, Scorer
from finegrain.train.collate import TrainingSet
from finegrain.train.loop import Trainer
from finegrain.types import Json, PlainSpan, Ragged

SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Point:
    """The policy after some steps."""

    step: int
    kl: float
    """Nats per answer: full-vocabulary KL(policy || base) summed along the policy's own samples."""
    quality: float
    """True quality per sampled answer: the sum over its sentences."""
    unreadable: float
    """Share of sampled sentences that are none of the world's."""
    chosen: float
    """Change of the log-probability of the training pairs' chosen answers since the start, nats per answer."""
    rejected: float
    """The same of the rejected ones."""


@dataclass(frozen=True)
class Probes:
    """What every reading of one seed uses."""

    world: World
    tokenizer: Any
    base: Scorer
    """The untouched base model."""
    prompts: Sequence[Example]
    """Held-out prompts, asked in turn."""
    pairs: Sequence[Example]
    """Training pairs whose log-probabilities are looked at."""
    reference: Mapping[str, Ragged]
    """Their log-probabilities under the base, by role."""
    samples: int
    """Answers per reading."""
    precision: Precision

    def quality(self, model: Any, seed: int) -> tuple[list[Example], list[np.ndarray], float, float]:
        """Prompts, sampled answers, their mean true quality, and the share of sentences that are none of the world's."""
        asked = [self.prompts[place % len(self.prompts)] for place in range(self.samples)]
        room = 2 + max(len(side.ids) for example in self.prompts for side in example.responses.values())
        answers = sample_answers(model, self.tokenizer, [example.prompt for example in asked], max_new_tokens=room, seed=seed)
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
        readings = [self.world.read(example.prompt_text, text) for example, text in zip(asked, texts, strict=True)]
        sentences = sum(len(reading.spans) + reading.unreadable for reading in readings)
        unreadable = sum(reading.unreadable for reading in readings) / max(1, sentences)
        return asked, answers, float(np.mean([reading.quality for reading in readings])), unreadable

    def distance(self, scorer: Scorer, asked: Sequence[Example], answers: Sequence[np.ndarray]) -> float:
        """KL to the base along the answers, nats per answer."""
        groups = [Group(e.prompt, (Branch(ids, np.ones(len(ids), dtype=bool)),)) for e, ids in zip(asked, answers, strict=True)]
        total = 0.0
        with torch.no_grad():
            for part in split_by_budget([group.tokens for group in groups], self.precision.micro_tokens):
                values = scorer([groups[place] for place in part], Request(kl_against=self.base))
                assert values.kl is not None
                total += float(values.kl.sum())
        return total / len(groups)

    def moved(self, scorer: Scorer) -> tuple[float, float]:
        """Mean log-ratio of the chosen and of the rejected training answers, nats per answer."""
        now = score_rows(scorer, self.pairs, SIDES, self.precision)
        chosen, rejected = (float(np.mean([(n - r).sum() for n, r in zip(now[role], self.reference[role], strict=True)])) for role in SIDES)
        return chosen, rejected

    def start(self) -> Point:
        """The base itself."""
        _, _, quality, unreadable = self.quality(self.base.model, seed=0)
        return Point(step=0, kl=0.0, quality=quality, unreadable=unreadable, chosen=0.0, rejected=0.0)

    def read(self, trainer: Trainer, step: int) -> Point:
        """The policy as it is now."""
        asked, answers, quality, unreadable = self.quality(trainer.scorer.model, seed=step)
        return Point(step, self.distance(trainer.scorer, asked, answers), quality, unreadable, *self.moved(trainer.scorer))


@dataclass
class PathReader:
    """A watcher of a run that reads the policy after some steps, and its credit once."""

    probes: Probes
    steps: frozenset[int]
    truth: Sequence[Json]
    """Rows of the training file, with `chosen_truth` and `rejected_truth`."""
    points: list[Point]
    credit: float | None = None
    """Area under the ROC curve of the run's token rewards, good against bad sentences of its training answers; None without credit."""

    def __call__(self, trainer: Trainer, line: Mapping[str, Any]) -> None:
        """Read if it is time to."""
        if trainer.data.token_columns and self.credit is None:
            self.credit = credit_auroc(trainer.data, self.truth)
        if line["step"] in self.steps:
            self.points.append(self.probes.read(trainer, line["step"]))


def credit_auroc(data: TrainingSet, truth: Sequence[Json]) -> float | None:
    """How well the mean token reward of a sentence tells good from bad sentences; None where one kind is missing."""
    scores: list[float] = []
    good: list[bool] = []
    for role in SIDES:
        for example, values in zip(data.examples, data.token_columns[role].reward, strict=True):
            spans: list[PlainSpan] = truth[example.row][f"{role}_truth"]
            for start, end, quality in spans if values is not None else ():
                inside = spans_to_tokens([(start, end, 1.0)], example.responses[role].offsets, outside=0.0) > 0
                if quality and inside.any():
                    assert values is not None
                    scores.append(float(values[inside].mean()))
                    good.append(quality > 0)
    return auroc(np.array(scores), np.array(good)).mean if 0 < sum(good) < len(good) else None


def best_within(points: Sequence[Point], kl: float) -> Point:
    """The policy of highest true quality at most `kl` nats from the base: a reading, or the point between two where the path leaves that range."""
    inside = [point for point in points if point.kl <= kl]
    leaving = [_between(before, after, kl) for before, after in pairwise(points) if before.kl <= kl < after.kl]
    return max([*inside, *leaving], key=lambda point: point.quality)


def _between(before: Point, after: Point, kl: float) -> Point:
    """The path at `kl` nats, linear in sqrt(KL): near the base what is gained or lost grows like that root."""
    low, high = max(before.kl, 0.0) ** 0.5, after.kl**0.5
    share = (kl**0.5 - low) / (high - low)
    mixed = {name: value + share * (getattr(after, name) - value) for name, value in asdict(before).items() if name not in ("step", "kl")}
    return Point(step=before.step, kl=kl, **mixed)
