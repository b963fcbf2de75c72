"""`finegrain reward classifier` and `finegrain reward calibrate`: a text classifier, its test on unseen groups, and the scale of its reward."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from finegrain.commands.classifier import CalibrateSettings, ClassifierSettings
from finegrain.configure import to_json
from finegrain.data.findings import Findings
from finegrain.data.read import read
from finegrain.errors import DataError
from finegrain.evaluate.discrimination import auroc
from finegrain.files import new_folder, write_new
from finegrain.models.ngrams import NGrams, fit_linear
from finegrain.models.text_classifier import LinearClassifier, save_linear
from finegrain.ops.class_odds import ClassReward, OddsScale, fit_odds
from finegrain.ops.proportions import wilson
from finegrain.recipes.quiet import quiet_transformers
from finegrain.runs import check_free
from finegrain.scoring.classifier import REWARD, load_classifier
from finegrain.scoring.runtime import open_runtime
from finegrain.terminal import write_line
from finegrain.types import Json


class LabelledText(NamedTuple):
    """A text of a pile."""

    text: str
    label: str
    group: str
    """Texts of one group are trained on, or held out, together."""


class PileSplit(NamedTuple):
    """What a classifier is fitted to and what it is tested on."""

    train: list[LabelledText]
    held_out: list[LabelledText]


def run_classifier(settings: ClassifierSettings) -> dict[str, Any]:
    """Write the classifier's folder, complete or not at all; returns its test and its scale."""
    check_free(settings.out, settings.data)
    findings = Findings()
    texts = list(_read_piles(settings, findings))
    for line in findings.messages():
        write_line(line)
    labels = list(settings.columns) if settings.columns else sorted({one.label for one in texts})
    target = settings.target or labels[-1]
    split = _split(texts, settings)
    _check_classes(settings, split, labels, target)
    ngrams = NGrams(settings.unit, settings.longest)
    numbers = [labels.index(one.label) for one in split.train]
    weight, bias = fit_linear([one.text for one in split.train], numbers, ngrams, settings.strength, settings.seed)
    classifier = LinearClassifier(torch.from_numpy(weight), torch.from_numpy(bias), tuple(labels), ngrams)
    plain = ClassReward(label=target, form=settings.form, temperature=settings.temperature)
    reference = _reference_texts(split, target)
    reward = _scaled(plain, fit_odds(plain.odds(classifier.logits([one.text for one in reference]), labels, False)))
    tested = _test(classifier, split.held_out, plain)
    counts = {"texts": len(texts), "classes": dict(Counter(one.label for one in texts)), "groups": len({one.group for one in texts})}
    facts = {**counts, "held_out": tested, "data": {"source": settings.data, "sha256": read(settings.data, settings.limit).sha256()}}
    with new_folder(settings.out) as folder:
        save_linear(classifier, {REWARD: to_json(reward), **facts}, folder)
    _say(tested, target)
    return {"out": str(settings.out), **counts, "findings": findings.as_json(), REWARD: to_json(reward), "held_out": tested}


def run_calibrate(settings: CalibrateSettings) -> dict[str, Any]:
    """Write the file, complete or not at all; returns what it says."""
    check_free(settings.out, settings.data)
    quiet_transformers()
    classifier = load_classifier(settings.model, partial(open_runtime, settings.device, settings.dtype), settings.max_length).classifier
    reward = ClassReward(label=settings.target or classifier.labels[-1], form=settings.form, temperature=settings.temperature, reads=settings.reads)
    reward.place(classifier.labels)
    findings = Findings()
    rows = list(_read_references(settings, findings))
    for line in findings.messages():
        write_line(line)
    prompts = [prompt for _, prompt in rows] if settings.reads == "prompt-and-answer" else None
    odds = reward.odds(classifier.logits([text for text, _ in rows], prompts), classifier.labels, classifier.independent)
    reward = _scaled(reward, fit_odds(odds))
    facts = {
        "model": settings.model,
        "weights": classifier.identity()["weights"],
        "classes": list(classifier.labels),
        REWARD: to_json(reward),
        "data": {"source": settings.data, "sha256": read(settings.data, settings.limit).sha256()},
        "texts_cut": classifier.cut,
    }
    write_new(settings.out, [json.dumps(facts, indent=2, ensure_ascii=False) + "\n"])
    write_line(f"log odds of {reward.label}: mean {reward.mean:.4g}, std {reward.std:.4g} of {reward.texts} reference texts")
    return {"out": str(settings.out), **facts, "findings": findings.as_json()}


def _read_piles(settings: ClassifierSettings, findings: Findings) -> Iterator[LabelledText]:
    """Every text with its class; cells without a text are counted."""
    for number, (where, raw) in enumerate(read(settings.data, settings.limit).rows):
        group = str(number) if settings.group is None else str(_cell(raw, settings.group, where))
        pairs = [(_cell(raw, name, where), name) for name in settings.columns] or [
            (_cell(raw, settings.text, where), _cell(raw, settings.label, where))
        ]
        for text, label in pairs:
            if not isinstance(text, str) or not text.strip() or label is None:
                findings.add("no_text", number, f"{where}: {text!r:.60}")
                continue
            yield LabelledText(text, str(label), group)


def _read_references(settings: CalibrateSettings, findings: Findings) -> Iterator[tuple[str, str]]:
    """(text, prompt) of every row."""
    both = settings.reads == "prompt-and-answer"
    for number, (where, raw) in enumerate(read(settings.data, settings.limit).rows):
        text, prompt = _cell(raw, settings.column, where), _cell(raw, settings.prompt_column, where) if both else ""
        if not isinstance(text, str) or not text.strip() or not isinstance(prompt, str):
            findings.add("no_text", number, f"{where}: {text!r:.60}")
            continue
        yield text, prompt


def _cell(raw: Mapping[str, Any], name: str, where: Any) -> Any:
    if name not in raw:
        raise DataError(f"{where} has no column {name}; it has {', '.join(map(str, raw)) or 'nothing'}")
    return raw[name]


def _split(texts: Sequence[LabelledText], settings: ClassifierSettings) -> PileSplit:
    """By group, drawn by the seed."""
    groups = sorted({one.group for one in texts})
    apart = set(np.random.default_rng(settings.seed).permutation(groups)[: round(settings.held_out * len(groups))].tolist())
    return PileSplit([one for one in texts if one.group not in apart], [one for one in texts if one.group in apart])


def _check_classes(settings: ClassifierSettings, split: PileSplit, labels: Sequence[str], target: str) -> None:
    there = {one.label for one in split.train}
    if target not in labels:
        raise DataError(f"--target {target} is none of the classes {', '.join(labels)}")
    if len(labels) < 2 or there != set(labels):
        missing = [name for name in labels if name not in there]
        told = f"no text of {', '.join(missing)} is left to train on" if missing else f"there is one class, {', '.join(labels)}"
        raise DataError(f"{settings.data}: {told}; a classifier tells two piles or more apart, each in several groups")


def _reference_texts(split: PileSplit, target: str) -> list[LabelledText]:
    """Held-out texts of the class, which the classifier does not know; training texts where there are not two [choice]."""
    unseen = [one for one in split.held_out if one.label == target]
    if len({one.text for one in unseen}) > 1:
        return unseen
    write_line(f"fewer than two texts of {target} are held out: the reward is calibrated on training texts, which the classifier knows by heart")
    return [one for one in split.train if one.label == target]


def _scaled(reward: ClassReward, scale: OddsScale) -> ClassReward:
    return replace(reward, mean=scale.mean, std=scale.std, texts=scale.texts)


def _test(classifier: LinearClassifier, texts: Sequence[LabelledText], reward: ClassReward) -> Json | None:
    """On held-out texts: how well the class is told from the others, by the classifier and by the number of words alone; None without them."""
    labels = classifier.labels
    is_target = np.array([one.label == reward.label for one in texts], dtype=bool)
    if not len(texts) or is_target.all() or not is_target.any():
        return None
    logits = classifier.logits([one.text for one in texts])
    found = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
    right = [labels[int(place)] == one.label for place, one in zip(found, texts, strict=True)]
    words = np.array([float(len(one.text.split())) for one in texts])
    return {
        "texts": len(texts),
        "groups": len({one.group for one in texts}),
        "accuracy": wilson(np.array(right, dtype=float)).as_json(),
        "auroc": auroc(reward.odds(logits, labels, False).numpy(), is_target).as_json(),
        "auroc_length_only": auroc(words, is_target).as_json(),
    }


def _say(tested: Json | None, target: str) -> None:
    if tested is None:
        write_line("the classifier was not tested: no group is held out that has texts of the class and of others")
        return
    area, words = tested["auroc"], tested["auroc_length_only"]
    write_line(
        f"held-out texts: {tested['texts']} of {tested['groups']} groups; {target} is told from the rest with an area under the ROC curve of "
        f"{area['mean']:.3f}, by the number of words alone {words['mean']:.3f} (0.5 is chance, either way)"
    )
