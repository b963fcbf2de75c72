"""The lines of `finegrain score`, one per response as it is scored, and what was counted on the way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from finegrain.commands.score import ScoreSettings
from finegrain.configure import to_json
from finegrain.data.questions import Questions, read_identifiers
from finegrain.data.records import Response
from finegrain.errors import DataError, UsageError
from finegrain.ops.aggregate import MeanReward, aggregate_answer
from finegrain.ops.segmenters import Dynamic, Segmenter
from finegrain.recipes.score_files.answers import read_answers
from finegrain.recipes.score_files.baseline_annotation import BaselineAnnotator, open_annotator
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Scores, score_with_candidates
from finegrain.scoring.runtime import open_runtime
from finegrain.scoring.scale import stored_scale
from finegrain.scoring.sources import RewardOptions
from finegrain.terminal import write_line
from finegrain.types import Json, Scored


@dataclass
class ScoreCounts:
    """What the result says beside the file."""

    facts: Json = field(default_factory=dict)
    responses: int = 0
    truncated: int = 0
    unscored: int = 0
    """Answers that the reward does not score."""
    flagged: int = 0
    """Answers that a reward model's bounds took more from than from clean ones."""
    lowest: float = float("inf")
    highest: float = float("-inf")
    trouble: str = ""
    """Why rows could not be read."""

    def line(self, line: Json) -> Json:
        """The line, counted."""
        self.responses += 1
        self.truncated += line["truncated"]
        self.flagged += line["score"].get("flag", False)
        mean = line["score"]["mean"]
        if mean is None:
            self.unscored += 1
        else:
            self.lowest, self.highest = min(self.lowest, mean), max(self.highest, mean)
        return line

    def warnings(self) -> list[str]:
        """What is odd about the scores."""
        if self.lowest == self.highest == 0 and self.responses > 1:
            return ["every score is 0: policy and reference say the same of these answers; are they the same model?"]
        if self.lowest == self.highest and self.responses > 1:
            return [f"every answer has the same score, {self.lowest:.6g}: it tells nothing apart"]
        return []

    def say(self, text: str) -> None:
        """One line to the person."""
        write_line(text)

    def tell(self, report: Json) -> None:
        """What was read, to the person and for the result."""
        for message in report["messages"]:
            self.say(message)
        self.facts |= {name: report[name] for name in ("rows", "dropped", "format")}
        self.trouble = report.get("in_words", "")

    def compared(self, relative: BaselineAnnotator) -> None:
        """What scores are relative to a baseline, told and kept for the result."""
        self.facts |= relative.facts()
        for message in relative.describe():
            self.say(message)

    def as_json(self) -> Json:
        """For stdout."""
        return {"responses": self.responses, "truncated": self.truncated, "unscored": self.unscored, **self.facts, "warnings": self.warnings()}


def score_lines(settings: ScoreSettings, counts: ScoreCounts) -> Iterator[Json]:
    """Lines in the order of the data."""
    questions = Questions(settings.data, settings.limit)
    options = RewardOptions(
        runtime=partial(open_runtime, settings.device, settings.dtype),
        max_length=settings.max_length,
        reference=settings.reference,
        beta=settings.beta,
        signal=settings.signal,
        tokenizer=settings.model[0] if settings.reward is not None and settings.model else None,
    )
    reward = open_reward(settings.model if settings.reward is None else settings.reward, options)
    if {"segments", "steps"} & set(reward.facts()) and settings.segmenter != Dynamic():
        raise UsageError(f"segmenter: cuts scores of tokens, and {settings.model[0]} was trained on segments or steps of its own: drop it")
    relative = None if settings.baseline is None else open_annotator(settings.baseline, settings.contrast, reward.identity)
    answers = read_answers(questions, settings.limit, reward, settings.max_length, counts.tell)
    scale = stored_scale(settings.model[0]) if settings.normalise else None
    if scale is not None:
        counts.facts["normalised_by"] = scale.as_json()
    names = Names(settings)
    for one, found in score_with_candidates(reward, answers):
        for role in one.roles:
            scores = found[role]
            if scores is not None and scores.numbers and scores.tokens is None:
                raise UsageError(f"{settings.reward} gives rewards per token: --model CHECKPOINT says by which tokenizer")
            head = {"id": names(one.row, role), "prompt": one.prompt_text, "response": one.answer_text(role)}
            line = {**head, **make_line(scores, settings.segmenter)}
            if scores is not None and not isinstance(settings.aggregate, MeanReward):
                line["score"]["reward"] = aggregate_answer(settings.aggregate, scores.answer)
            if scale is not None:
                line["score"] |= scale.normalised(line["score"])
            yield counts.line(line if relative is None else relative(role, line))
    if not counts.responses:
        raise DataError(f"{settings.data}: no answer could be read; {counts.trouble}")
    counts.facts |= reward.facts()
    if not isinstance(settings.aggregate, MeanReward):
        counts.facts["aggregate"] = to_json(settings)["aggregate"]
    if "bounds" in counts.facts:
        counts.facts["bounds"] = {**counts.facts["bounds"], "flagged": counts.flagged}
    for message in reward.describe():
        counts.say(message)
    if relative is not None:
        counts.compared(relative)


class Names:
    """Names of responses: row/role, with a number where a row has several; the row is its number, or what --id says."""

    def __init__(self, settings: ScoreSettings) -> None:
        self._stream = None if settings.id is None else read_identifiers(settings.data, settings.id, settings.limit)
        self._row, self._name = -1, ""
        self._seen: dict[str, int] = {}

    def __call__(self, row: int, role: str) -> str:
        """Rows come in order."""
        if row != self._row:
            self._seen = {}
            self._name = str(row) if self._stream is None else next(name for number, name in self._stream if number == row)
            self._row = row
        self._seen[role] = self._seen.get(role, 0) + 1
        return f"{self._name}/{role}" + (f"/{self._seen[role]}" if self._seen[role] > 1 else "")


def make_line(scores: Scores | None, segmenter: Segmenter) -> Json:
    """Score, tokens and segments of one answer."""
    if scores is None:
        return {"score": {"mean": None, "std": None}, "tokens": [], "segments": [], "truncated": False}
    std = scores.answer.std
    score: Json = {"mean": float(scores.answer.mean), "std": None if std is None else float(std)}
    score |= {} if scores.bounded is None else scores.bounded._asdict()
    if scores.attributes:
        score["attributes"] = dict(scores.attributes)
    tokens, segments = ([], []) if scores.tokens is None or scores.response is None else _on_tokens(scores, scores.tokens, scores.response, segmenter)
    if scores.spans:
        segments = [[start, end, value] for start, end, value, *_ in scores.spans]
    return {"score": score, "tokens": tokens, "segments": segments, "truncated": scores.truncated}


def _on_tokens(scores: Scores, on: Scored, response: Response, segmenter: Segmenter) -> tuple[list[Any], list[Any]]:
    """[start, end, mean, std] of every scored token, and [start, end, mean] of segments: the reward's own, or where the segmenter cuts."""
    mask = torch.from_numpy(np.array(response.mask))
    means = on.mean[mask].tolist()
    stds: Sequence[Any] = [None] * len(means) if on.std is None else on.std[mask].tolist()
    spans = token_spans(response)
    if scores.segments is None:
        ids = segmenter(on.mean[None], mask[None])[0][mask].tolist()
        own_scores = means
    else:
        ids = scores.segments.ids[response.mask].tolist()
        own_scores = scores.segments.scores.mean[mask].tolist()
    segments = []
    for segment in sorted(set(ids) - {-1}):
        own = [place for place, one in enumerate(ids) if one == segment]
        value = own_scores[own[-1]] if scores.segments is not None else sum(means[p] for p in own) / len(own)
        segments.append([min(spans[p][0] for p in own), max(spans[p][1] for p in own), value])
    return [[start, end, mean, one] for (start, end), mean, one in zip(spans, means, stds, strict=True)], segments


def token_spans(response: Response) -> list[tuple[int, int]]:
    """Characters of the scored tokens; a token without characters stands, empty, where the token before it ends."""
    spans: list[tuple[int, int]] = []
    for start, end in response.offsets[response.mask].tolist():
        here = spans[-1][1] if spans else 0
        spans.append((start, end) if end > start else (here, here))
    return spans
