"""Segments or steps of the answers that a reward model's checkpoint is asked about, cut as they were for its training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from finegrain.configure import to_kebab
from finegrain.data.aspects import annotation_of, aspect_values
from finegrain.data.convert.steps import JOIN
from finegrain.data.records import Example, Response
from finegrain.data.spans import spans_to_tokens
from finegrain.errors import ModelError
from finegrain.files import cache_folder
from finegrain.models.fingerprint import model_fingerprint
from finegrain.models.load import Policy, load_policy, master_dtype
from finegrain.models.probe import make_scorer
from finegrain.models.score import Precision, measure_entropies
from finegrain.models.scorer import Scorer, silence_dropout
from finegrain.rewards.declarations import read_head
from finegrain.rewards.step import Step
from finegrain.scoring.runtime import Runtime
from finegrain.types import CharSpan, Json, Ragged

SegmentIds = list[dict[str, np.ndarray]]
"""By example and role, the segment or step of each token (T,), -1 in none."""


def start_model_facts(policy: Policy) -> Json:
    """Which model's entropies cut the answers, for the checkpoint: where it lies, and what is in its files."""
    folder = Path(policy.source)
    kept = folder.is_dir() and not policy.in_memory
    return {
        "source": str(folder.resolve()) if kept else policy.source,
        "in_memory": policy.in_memory,
        "sha256": model_fingerprint(policy, cache_folder()) if kept else None,
    }


@dataclass(frozen=True)
class Start:
    """The language model that a checkpoint's training began with, frozen."""

    scorer: Scorer
    source: str

    def entropies(self, examples: Sequence[Example], roles: Sequence[str], precision: Precision) -> dict[str, Ragged]:
        """By role, entropy, nats, of the distribution that predicts each token."""
        return measure_entropies(self.scorer, examples, roles, precision)


def open_start(runtime: Runtime, facts: Mapping[str, Any], checkpoint: str, longest: int) -> Start:
    """The start model that a checkpoint names; raises ModelError where it is not there, or is another one by now."""
    told = facts.get("start_model")
    if not isinstance(told, Mapping) or told.get("in_memory"):
        raise ModelError(
            f"{checkpoint} cuts answers by the entropies of the model it was trained from, and reward_head.json names none that can be loaded: "
            "save that model and write its folder there as start_model.source, or train from a checkpoint folder"
        )
    source = str(told["source"])
    try:
        policy = load_policy(source, master=master_dtype(runtime.precision.name))
    except ModelError as error:
        raise ModelError(
            f"{checkpoint} cuts answers by the entropies of {source}, the model it was trained from: {error}; "
            "if that model has moved, write its new folder into reward_head.json as start_model.source"
        ) from error
    if told.get("sha256") is not None and model_fingerprint(policy, cache_folder()) != told["sha256"]:
        raise ModelError(
            f"{checkpoint} cuts answers by the entropies of {source}, whose weights or config have changed since it was trained: "
            "its segments would be others; put the same model back"
        )
    silence_dropout(policy.model)
    policy.model.to(runtime.device).eval()
    return Start(make_scorer(policy.model, longest=longest)[0], source)


@dataclass(frozen=True)
class Segmentation:
    """What cuts answers for a head of segments or steps."""

    head: Any
    start: Start | None
    """None where the head's segmenter asks no model."""
    seen: Counter[str] = field(default_factory=Counter)
    """Answers, and how their steps were found."""

    def __call__(self, examples: Sequence[Example], roles: Sequence[str], precision: Precision) -> SegmentIds:
        """Ids of the tokens of every answer; each answer has a segment or step."""
        columns = self.head.prepare(ScoringContext(self, examples, tuple(roles), precision))
        self.seen["answers"] += len(examples) * len(roles)
        return [{role: np.asarray(columns[role].segment[place]) for role in roles} for place in range(len(examples))]

    def fresh(self) -> "Segmentation":
        """The same with nothing counted."""
        return replace(self, seen=Counter())

    def facts(self) -> Json:
        """For results."""
        if isinstance(self.head, Step):
            return {"steps": {name: self.seen[name] for name in ("answers", "from_data", "by_line", "single_line", "cut")}}
        source = None if self.start is None else self.start.source
        return {"segments": {"segmenter": to_kebab(type(self.head.segmenter).__name__), "start_model": source}}

    def describe(self) -> list[str]:
        """For a person."""
        if not isinstance(self.head, Step):
            told = self.facts()["segments"]
            asked = "" if self.start is None else f" on the entropies of {self.start.source}"
            return [f"segments: {told['segmenter']}{asked}, as in training"]
        lines, single = self.seen["by_line"], self.seen["single_line"]
        found = [f"steps: {self.seen['from_data']} of {self.seen['answers']} answers in the steps that the data give"]
        if lines:
            found.append(f"steps: {lines} answers without steps of their own are cut at line breaks, {single} of them are one line and so one step")
        if self.seen["cut"]:
            found.append(f"steps: {self.seen['cut']} answers have no whole step within --max-length; what is left of them is read as one")
        return found


class TokenisedAnswers:
    """What every `AnswerContext` says of the tokens of its examples."""

    examples: Sequence[Example]

    def masks(self, role: str) -> Ragged:
        """The answers' tokens."""
        return [example.responses[role].mask for example in self.examples]

    def token_ids(self, role: str) -> Ragged:
        """Tokens of the answers."""
        return [example.responses[role].ids for example in self.examples]

    def end_tokens(self, role: str) -> Ragged:
        """The last token that trains, where it stands for no text."""
        return [end_token(example.responses[role]) for example in self.examples]

    def span_values(self, role: str, aspects: Sequence[str]) -> list[np.ndarray | None]:
        """Values of the tokens under annotators' spans, NaN in none."""
        return [None if (answer := annotation_of(example, role)) is None else aspect_values(answer, aspects) for example in self.examples]


@dataclass(frozen=True)
class ScoringContext(TokenisedAnswers):
    """The `AnswerContext` of answers that nothing is trained on."""

    segmentation: Segmentation
    examples: Sequence[Example]
    roles: tuple[str, ...]
    precision: Precision
    trains: bool = False

    def entropies(self, role: str) -> Ragged:
        """By the start model."""
        assert self.segmentation.start is not None
        return self.segmentation.start.entropies(self.examples, (role,), self.precision)[role]

    def labelled_steps(self, role: str) -> tuple[Ragged, Ragged]:
        """The data's own steps where the answer has some, else its lines; the labels are not asked for."""
        numbers = [self._steps(example, role) for example in self.examples]
        return numbers, [np.zeros(len(own), dtype=np.float32) for own in numbers]

    def _steps(self, example: Example, role: str) -> np.ndarray:
        response, seen = example.responses[role], self.segmentation.seen
        given = example.spans.get(role) if "steps" in example.columns else None
        spans = given or lines_of(response.text)
        numbers, _ = steps_on_tokens(spans, response)
        seen["from_data" if given else "by_line"] += 1
        seen["single_line"] += not given and len(spans) < 2
        if (numbers >= 0).any():
            return numbers
        seen["cut"] += 1
        return all_of(response)

    def span_values(self, role: str, aspects: Sequence[str]) -> list[np.ndarray | None]:
        """Nobody asks for annotations here."""
        return [None] * len(self.examples)

    def table_scores(self) -> Mapping[str, Ragged]:
        """No table is fitted to them."""
        return {}

    def note(self, name: str, facts: Mapping[str, int]) -> None:
        """Nothing is kept."""


def lines_of(text: str) -> list[CharSpan]:
    """The lines of a text that say something, as steps of rows with labelled steps are joined."""
    spans: list[CharSpan] = []
    start = 0
    for line in text.split(JOIN):
        if line.strip():
            first = start + len(line) - len(line.lstrip())
            spans.append(CharSpan(first, first + len(line.strip()), 0.0))
        start += len(line) + len(JOIN)
    return spans


def end_token(response: Response) -> np.ndarray:
    """(T,) True at the last token that trains if it covers no characters."""
    found = np.zeros(len(response.ids), dtype=bool)
    trained = np.flatnonzero(response.mask)
    if len(trained) and response.offsets[trained[-1], 0] == response.offsets[trained[-1], 1]:
        found[trained[-1]] = True
    return found


def all_of(response: Response) -> np.ndarray:
    """One step: every token with characters, or every token of an answer that has none."""
    here = (response.offsets[:, 1] > response.offsets[:, 0]) & response.mask
    return np.where(here if here.any() else response.mask, 0, -1).astype(np.int64)


def open_segmentation(runtime: Runtime, head: Any, facts: Mapping[str, Any], checkpoint: str, longest: int) -> Segmentation | None:
    """What cuts answers for the head of a checkpoint; None for one that reads every token, or the last."""
    declared = read_head(head)
    if declared.read_positions is None:
        return None
    return Segmentation(head, open_start(runtime, facts, checkpoint, longest) if declared.reads_entropy else None)


def steps_on_tokens(spans: Sequence[CharSpan], response: Response) -> tuple[np.ndarray, np.ndarray]:
    """(number, label) of the step of each token: -1 and 0 outside, on tokens without characters, and in a step that does not end in the tokens."""
    offsets = response.offsets
    here = (offsets[:, 1] > offsets[:, 0]) & response.mask
    covered = int(offsets[here, 1].max(initial=0))
    whole = [span._replace(value=float(number)) for number, span in enumerate(spans) if len(response.text[: span.end].rstrip()) <= covered]
    numbers = np.where(here, spans_to_tokens(whole, offsets, outside=-1.0), -1.0).astype(np.int64) if len(offsets) else np.zeros(0, np.int64)
    labels = np.array([spans[number].value if number >= 0 else 0.0 for number in numbers], dtype=np.float32)
    return numbers, labels
