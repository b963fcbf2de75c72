"""The lines of `finegrain score`, one per response as it is scored, and what was counted on the way."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from finegrain.commands.score import ScoreSettings
from finegrain.commands.settings import Common
from finegrain.configure import to_json
from finegrain.data.answer_text import join_answer
from finegrain.data.findings import Findings
from finegrain.data.gate.keeper import FIRST_ROWS, find_common_format
from finegrain.data.gate.texts import get_texts
from finegrain.data.load import load_examples
from finegrain.data.questions import Question, Questions, read_identifiers
from finegrain.data.read import read
from finegrain.data.records import Example, Response
from finegrain.data.shapes import find_own_shape
from finegrain.data.spans import spans_to_tokens
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.errors import DataError, UsageError
from finegrain.models.load import tokenizer_of
from finegrain.ops.aggregate import MeanReward
from finegrain.ops.segmenters import Dynamic, Segmenter
from finegrain.recipes.score_files.relative import Beside, open_relative
from finegrain.scoring.aggregation import shown
from finegrain.scoring.function import Asked, Verdict, open_function
from finegrain.scoring.identity import function_identity, model_identity
from finegrain.scoring.records import Judge, Judged, open_policies
from finegrain.scoring.reward_model import RewardJudge, open_reward_model
from finegrain.scoring.runtime import open_runtime
from finegrain.scoring.scale import stored_scale
from finegrain.terminal import write_line
from finegrain.types import Json, Scored

BLOCK = 64
"""Rows that a function of the user's own is asked about in one call."""


@dataclass
class Counts:
    """What the result says beside the file."""

    facts: Json = field(default_factory=dict)
    responses: int = 0
    truncated: int = 0
    unscored: int = 0
    """Answers that the user's function returned None for."""
    flagged: int = 0
    """Answers that a reward model's bounds took more from than from clean ones."""
    lowest: float = float("inf")
    highest: float = float("-inf")

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

    def compared(self, relative: Beside) -> None:
        """What scores are relative to a baseline, told and kept for the result."""
        self.facts |= relative.facts()
        for message in relative.words():
            self.say(message)

    def as_json(self) -> Json:
        """For stdout."""
        return {"responses": self.responses, "truncated": self.truncated, "unscored": self.unscored, **self.facts, "warnings": self.warnings()}


def open_judge(models: tuple[str, ...], reference: str | None, beta: float, common: Common, signal: Any) -> Judge:
    """Policies where there is a reference, a reward model otherwise."""
    means = open_runtime(common.device, common.dtype)
    if reference is not None:
        return open_policies(means, models, reference, beta)
    return open_reward_model(means, models[0], longest=common.max_length, signal=signal)


def by_judge(settings: ScoreSettings, counts: Counts) -> Iterator[Json]:
    """Lines by a model, in the order of the data."""
    shape = find_own_shape(find_common_format(list(islice(read(settings.data, settings.limit).rows, FIRST_ROWS))))
    common = Common(max_length=settings.max_length, device=settings.device, dtype=settings.dtype)
    judge = open_judge(settings.model, settings.reference, settings.beta, common, settings.signal)
    if {"segments", "steps"} & set(judge.facts()) and settings.segmenter != Dynamic():
        raise UsageError(f"segmenter: cuts scores of tokens, and {settings.model[0]} was trained on segments or steps of its own: drop it")
    relative = open_relative(settings.baseline, settings.contrast, lambda: _identity(judge, settings.max_length))
    data = load_examples(settings.data, judge.tokenizer, shape=shape, settings=Tokenise(max_length=settings.max_length), limit=settings.limit)
    for message in data.report["messages"]:
        counts.say(message)
    counts.facts |= {name: data.report[name] for name in ("rows", "dropped", "format")}
    scale = stored_scale(settings.model[0]) if settings.normalise else None
    if scale is not None:
        counts.facts["normalised_by"] = scale.as_json()
    names = Names(settings)
    eos: int | None = judge.tokenizer.eos_token_id
    roles = data.examples.roles
    for example, found in zip(data.examples, judge(data.examples, roles), strict=True):
        for role in roles:
            response = example.responses[role]
            head = {"id": names(example.row, role), "prompt": example.prompt_text}
            line = {**head, **judged_line(response, found[role], settings.segmenter, truncated=is_cut(response, eos))}
            if not isinstance(settings.aggregate, MeanReward):
                line["score"]["reward"] = shown(settings.aggregate, found[role].answer)
            if scale is not None:
                line["score"] |= scale.normalised(line["score"])
            yield counts.line(relative(role, line))
    counts.facts |= judge.facts()
    if not isinstance(settings.aggregate, MeanReward):
        counts.facts["aggregate"] = to_json(settings)["aggregate"]
    if "bounds" in counts.facts:
        counts.facts["bounds"] = {**counts.facts["bounds"], "flagged": counts.flagged}
    for message in judge.words():
        counts.say(message)
    counts.compared(relative)


def _identity(judge: Judge, max_length: int) -> Json:
    """Of the one kind of judge that a baseline is for."""
    assert isinstance(judge, RewardJudge)
    return model_identity(judge, max_length)


def by_function(settings: ScoreSettings, counts: Counts) -> Iterator[Json]:
    """Lines by a function of the user's own, in the order of the data; nothing is dropped but what cannot be read."""
    assert settings.reward is not None
    path = settings.reward
    function = open_function(path)
    relative = open_relative(settings.baseline, settings.contrast, lambda: function_identity(path))
    tokenizer = tokenizer_of(settings.model[0]) if settings.model else None
    questions = Questions(settings.data, settings.limit)
    names = Names(settings)
    for block in _blocks(questions()):
        sides = [(question, role) for question in block for role in question.made.answers]
        verdicts = function([Asked(one.row, one.made.prompt, one.made.answers[role].content, one.raw) for one, role in sides])
        for (question, role), verdict in zip(sides, verdicts, strict=True):
            head = {"id": names(question.row, role), "prompt": get_texts(question.made).prompt}
            yield counts.line(relative(role, {**head, **_verdict_line(question, role, verdict, tokenizer, settings)}))
    for message in questions.findings.messages():
        counts.say(message)
    if not counts.responses:
        raise DataError(f"{settings.data}: no answer could be read; {questions.findings.in_words()}")
    counts.facts |= {"rows": questions.rows, "dropped": questions.findings.dropped(), "format": questions.format.name}
    counts.compared(relative)


def _blocks(questions: Iterable[Question]) -> Iterator[list[Question]]:
    stream = iter(questions)
    while block := list(islice(stream, BLOCK)):
        yield block


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


def is_cut(response: Response, eos: int | None) -> bool:
    """Whether tokens at the end are missing, be it the end token alone."""
    if eos is not None:
        return len(response.ids) == 0 or int(response.ids[-1]) != eos
    covered = int(response.offsets[:, 1].max(initial=0))
    return covered < len(response.text.rstrip())


def judged_line(response: Response, judged: Judged, segmenter: Segmenter, *, truncated: bool) -> Json:
    """Text, score, tokens and segments of one answer."""
    mask = torch.from_numpy(np.array(response.mask))
    means = judged.tokens.mean[mask].tolist()
    stds = [None] * len(means) if judged.tokens.std is None else judged.tokens.std[mask].tolist()
    spans = token_spans(response)
    if judged.parts is None:
        ids = segmenter(judged.tokens.mean[None], mask[None])[0][mask].tolist()
        own_scores = means
    else:
        ids = judged.parts.ids[response.mask].tolist()
        own_scores = judged.parts.scores.mean[mask].tolist()
    segments = []
    for segment in sorted(set(ids) - {-1}):
        own = [place for place, one in enumerate(ids) if one == segment]
        value = own_scores[own[-1]] if judged.parts is not None else sum(means[p] for p in own) / len(own)
        segments.append([min(spans[p][0] for p in own), max(spans[p][1] for p in own), value])
    std = judged.answer.std
    extra = {} if judged.bounded is None else judged.bounded._asdict()
    if judged.attributes:
        extra["attributes"] = dict(judged.attributes)
    return {
        "response": response.text,
        "score": {"mean": float(judged.answer.mean), "std": None if std is None else float(std), **extra},
        "tokens": [[start, end, mean, one] for (start, end), mean, one in zip(spans, means, stds, strict=True)],
        "segments": segments,
        "truncated": truncated,
    }


def token_spans(response: Response) -> list[tuple[int, int]]:
    """Characters of the scored tokens; a token without characters stands, empty, where the token before it ends."""
    spans: list[tuple[int, int]] = []
    for start, end in response.offsets[response.mask].tolist():
        here = spans[-1][1] if spans else 0
        spans.append((start, end) if end > start else (here, here))
    return spans


def _verdict_line(question: Question, role: str, verdict: Verdict, tokenizer: Any, settings: ScoreSettings) -> Json:
    """The line of a function's verdict; its spans are segments, and tokens too where a tokenizer was given."""
    text = join_answer(question.made.answers[role].content)
    plain = {"response": text, "score": {"mean": verdict.score, "std": None}, "tokens": [], "segments": [], "truncated": False}
    if tokenizer is None or verdict.score is None or not (verdict.spans or verdict.tokens):
        if verdict.tokens:
            raise UsageError(f"{settings.reward} gives rewards per token: --model CHECKPOINT says by which tokenizer")
        return {**plain, "segments": [list(span) for span in verdict.spans]}
    example, values = _on_tokens(question, role, verdict, tokenizer, settings)
    response = example.responses["answer"]
    tokens = torch.from_numpy(np.where(response.mask, values, 0.0))
    judged = Judged(Scored(tokens), Scored(torch.tensor(verdict.score, dtype=torch.float64)))
    line = judged_line(response, judged, settings.segmenter, truncated=is_cut(response, tokenizer.eos_token_id))
    return {**line, "segments": [list(span) for span in verdict.spans]} if verdict.spans else line


def _on_tokens(question: Question, role: str, verdict: Verdict, tokenizer: Any, settings: ScoreSettings) -> tuple[Example, np.ndarray]:
    """The tokenised answer, and the verdict's value on each token."""
    content = question.made.answers[role].content
    answer = replace(question.made.answers[role], content=content, spans=list(verdict.spans), token_reward=list(verdict.tokens) or None)
    row = replace(question.made, answers={"answer": answer}, columns={})
    findings = Findings()
    found = list(tokenise([(question.row, row)], tokenizer, Tokenise(max_length=settings.max_length), findings))
    if not found:
        raise DataError(f"row {question.row}, {role}: cannot be tokenised ({findings.in_words()})")
    if verdict.spans:
        return found[0], spans_to_tokens(verdict.spans, found[0].responses["answer"].offsets, outside=0.0).astype(np.float64)
    rewards = found[0].token_rewards["answer"]
    if rewards is None:
        raise UsageError(f"{settings.reward}, row {question.row}, {role}: {findings.by_kind['token_reward_length'].example}")
    return found[0], rewards.astype(np.float64)
