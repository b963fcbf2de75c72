"""A text classifier's belief in one class as a reward: of the answer, or of each word by what it changes.

A source is `classifier:PATH`: a folder of `finegrain reward classifier`, a file of `finegrain reward calibrate`, or a sequence-classification
checkpoint, of which the last class is then the reward, as bounded log odds without calibration.

Under a signal of prefix differences a word is rewarded with the reward of the text up to it less that of the text before it; the first one with the
reward of itself, so that the words of an answer add up to the answer's reward.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from finegrain.configure import from_json, to_json
from finegrain.credit.reward_signals import PrefixDifference
from finegrain.data.answer_text import join_answer
from finegrain.data.records import Text
from finegrain.errors import FinegrainError, ModelError, UsageError
from finegrain.models.text_classifier import FACTS_FILE, WEIGHTS_FILE, TextClassifier, load_linear, load_stock_classifier
from finegrain.ops.class_odds import ClassReward, prefix_differences
from finegrain.scoring.runtime import Runtime
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.text_reward import Completion, TextReward, open_token_reader
from finegrain.types import Json

WORD = re.compile(r"\s*\S+\s*")
"""A word with the white space behind it, the first one with that before it too."""
REWARD = "reward"
"""Entry of a file that says what of the logits is the reward."""


class LoadedClassifier(NamedTuple):
    """A classifier, and what of it is the reward."""

    classifier: TextClassifier
    reward: ClassReward

    def score(self, texts: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """The reward of each text."""
        given = prompts if self.reward.reads == "prompt-and-answer" else None
        odds = self.reward.odds(self.classifier.logits(texts, given), self.classifier.labels, self.classifier.independent)
        return [float(value) for value in self.reward(odds)]


@dataclass(frozen=True)
class ClassifierReward(TextReward):
    """The reward of a classifier; texts that it did not read to their end are counted."""

    loaded: LoadedClassifier = field(kw_only=True)

    def facts(self) -> Json:
        """The class, the form and the texts that were cut."""
        classifier, reward = self.loaded
        return {"classes": list(classifier.labels), REWARD: to_json(reward), "texts_cut": classifier.cut}

    def describe(self) -> list[str]:
        """The same for a person."""
        classifier, reward = self.loaded
        name = classifier.labels[reward.place(classifier.labels)]
        form = type(reward.form).__name__.lower()
        scale = f"mean {reward.mean:.3g}, std {reward.std:.3g} of {reward.texts} reference texts" if reward.texts else "not calibrated"
        cut = [f"{self.source}: the end of {classifier.cut} texts was not read"] if classifier.cut else []
        return [f"{self.source}: class {name} of {', '.join(classifier.labels)}, {form}, {scale}", *cut]


def open_classifier(sources: Sequence[str], options: RewardOptions) -> ClassifierReward:
    """The classifier of `classifier:PATH`."""
    (source,) = sources
    loaded = load_classifier(source.removeprefix("classifier:"), options.runtime, options.max_length)
    score = partial(_score_prefixes if isinstance(options.signal, PrefixDifference) else _score_answers, loaded)
    identity = {"kind": "classifier", "source": source, **loaded.classifier.identity(), REWARD: to_json(loaded.reward)}
    return ClassifierReward(source, score, lambda: identity, open_token_reader(options), loaded=loaded)


def load_classifier(path: str, runtime: Any, longest: int) -> LoadedClassifier:
    """A classifier with its reward; `runtime` gives the `Runtime` of a checkpoint's network."""
    file = Path(path) / FACTS_FILE if (Path(path) / FACTS_FILE).is_file() else Path(path)
    if not (file.is_file() and file.suffix == ".json"):
        return LoadedClassifier(_load_stock(path, runtime(), longest), ClassReward())
    facts = _read_facts(file)
    reward = _read_reward(file, facts)
    model = facts.get("model")
    if model is None:
        sha256 = hashlib.sha256((file.parent / WEIGHTS_FILE).read_bytes()).hexdigest() if (file.parent / WEIGHTS_FILE).is_file() else ""
        classifier: TextClassifier = load_linear(file.parent, facts, sha256)
    else:
        inner = load_classifier(_beside(file, str(model)), runtime, longest)
        classifier = inner.classifier
        if (told := facts.get("weights")) is not None and classifier.identity()["weights"] != told:
            raise ModelError(f"{file} was calibrated with other weights than {model} has now; make it again with `finegrain reward calibrate`")
    reward.place(classifier.labels)
    return LoadedClassifier(classifier, reward)


def _load_stock(path: str, runtime: Runtime, longest: int) -> TextClassifier:
    return load_stock_classifier(path, runtime.device, runtime.precision, longest)


def _beside(file: Path, model: str) -> str:
    """A path that is relative to the file, where it is there; else as it is, e.g. a Hub name."""
    return str(file.parent / model) if (file.parent / model).exists() else model


def _read_facts(file: Path) -> Json:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the classifier {file}: {error}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get(REWARD), dict):
        raise ModelError(f"{file} says nothing of a classifier's reward: expected a file of `finegrain reward classifier` or `reward calibrate`")
    return facts


def _read_reward(file: Path, facts: Json) -> ClassReward:
    try:
        reward: ClassReward = from_json(ClassReward, facts[REWARD], f"{file}: {REWARD}")
    except (FinegrainError, TypeError) as error:
        raise ModelError(f"{file}: its reward cannot be read: {error}") from error
    return reward


def _score_answers(loaded: LoadedClassifier, asked: Sequence[Completion]) -> list[float]:
    return loaded.score([join_answer(one.completion) for one in asked], [_as_text(one.prompt) for one in asked])


def _score_prefixes(loaded: LoadedClassifier, asked: Sequence[Completion]) -> list[Any]:
    """Spans of words; of an answer without words its reward."""
    found: list[Any] = []
    for one in asked:
        text = join_answer(one.completion)
        spans = [match.span() for match in WORD.finditer(text)]
        prefixes = [text[:end] for _, end in spans] or [text]
        rewards = loaded.score(prefixes, [_as_text(one.prompt)] * len(prefixes))
        values = prefix_differences(rewards)
        found.append([(start, end, value) for (start, end), value in zip(spans, values, strict=True)] if spans else rewards[0])
    return found


def _as_text(prompt: Text) -> str:
    """The prompt; of a conversation the contents of its turns."""
    if isinstance(prompt, str):
        return prompt
    if not all(isinstance(turn.content, str) for turn in prompt):
        raise UsageError("a classifier of prompt and answer reads texts alone")
    return "\n\n".join(turn.content for turn in prompt)
