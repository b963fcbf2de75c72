"""Planted data: readable answers whose every sentence has a known quality, and pairs labelled by the noisy sum of qualities.

Advice on household things: the prompt names a material and a thing, an answer is several sentences "Wipe it with salt.". The means
(salt) is a sentence's type; a type's quality is -1, 0 or +1, drawn once per seed, and cannot be guessed from the word. Held-out
pairs name things and use verbs that no training pair has, so none of their sentences occurs in a training pair.

Source: ours [OURS]; Bradley-Terry labels: Bradley and Terry 1952, https://doi.org/10.2307/2334029, eq. 2 (number: memory).
Deviations: not from a paper. Words, the share of each quality and the annotators' error model are [choice].
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Int

from finegrain.checked import NonNegativeFloat, NonNegativeInt, PositiveInt, Range, Share, checked
from finegrain.errors import UsageError
from finegrain.types import Json, PlainSpan

MATERIALS = ("copper", "brass", "steel", "silver", "glass", "leather", "wooden", "wicker", "velvet", "linen")
THINGS = (
    "kettle", "tray", "bench", "chair", "bowl", "lamp", "clock", "box", "mirror", "table", "vase", "basket",
    "case", "frame", "cup", "stool", "pan", "jug", "shelf", "screen", "handle", "plate", "drawer", "door",
)  # fmt: skip
VERBS = ("Wipe", "Rinse", "Polish", "Brush", "Dust", "Rub", "Treat", "Wash", "Scrub", "Clean", "Coat", "Cover")
MEANS = (
    "vinegar", "salt", "lemon", "soap", "water", "sand", "oil", "wax",
    "flour", "sugar", "milk", "honey", "butter", "chalk", "ash", "clay",
    "bleach", "ammonia", "alcohol", "petrol", "starch", "soda", "borax", "glycerine",
    "turpentine", "lanolin", "beeswax", "resin", "lacquer", "varnish", "shellac", "paraffin",
    "cotton", "silk", "wool", "felt", "denim", "canvas", "flannel", "linen",
    "leather", "rubber", "cork", "paper", "cardboard", "foil", "plastic", "newspaper",
    "tissue", "sponge", "brush", "broom", "comb", "rag", "towel", "duster",
    "mop", "scraper", "file", "knife", "razor", "needle", "tweezers", "toothpick",
    "steam", "ice", "snow", "heat", "sunlight", "smoke", "air", "mud",
    "gravel", "straw", "hay", "moss", "bran", "sawdust", "feathers", "leaves",
    "coffee", "tea", "wine", "beer", "cider", "juice", "broth", "yoghurt",
    "mustard", "ketchup", "mayonnaise", "pepper", "cinnamon", "ginger", "garlic", "onion",
    "talc", "gelatine", "glue", "paste", "putty", "plaster", "cement", "lime",
    "graphite", "pumice", "emery", "quartz", "glycol", "acetone", "naphtha", "kerosene",
)  # fmt: skip
CONTEXTS = 2
"""Number of groups of materials; a context-dependent type is good in one group and bad in the other."""

PROMPT = re.compile(r"How do I look after a (\w+) (\w+)\?")
SENTENCE = re.compile(r"(\w+) it with (\w+)\.")


@dataclass(frozen=True, kw_only=True)
@checked
class Planted:
    """Parameters of the task."""

    pairs: PositiveInt = 100
    """Pairs that a method may train on."""
    pool: NonNegativeInt = 1900
    """Further pairs, used only by a scorer (or the larger baseline)."""
    held_out_pairs: NonNegativeInt = 128
    """Pairs of other things and other verbs."""
    sentences: PositiveInt = 6
    """Sentences per answer."""
    sentence_types: Annotated[int, Range(2.0, float(len(MEANS)))] = 112
    """Number of sentence types; fewer types recur more often, and credit is learned from recurrence."""
    good: Share = 0.2
    """Share of types with quality +1."""
    bad: Share = 0.2
    """Share of types with quality -1."""
    temperature: NonNegativeFloat = 1.0
    """Label noise: P(first preferred) = sigmoid((quality of first - quality of second) / temperature); 0 means no noise."""
    context_dependence: Share = 0.0
    """Share of the good and bad types whose quality is reversed for half of the materials."""
    annotated: Share = 0.3
    """Share of the answers on which an annotator marked the bad sentences, in the annotated copy of the pairs."""
    annotation_error: Share = 0.1
    """Probability that the annotator's label of a sentence (bad or not) is wrong."""
    held_out_words: Share = 0.25
    """Share of the things and of the verbs reserved for held-out pairs."""

    def __post_init__(self) -> None:
        if self.good + self.bad > 1:
            raise UsageError(f"good and bad are shares of all types, got {self.good} and {self.bad}")


class WorldVocabulary(NamedTuple):
    """Which things prompts name and which verbs answers use."""

    things: Sequence[str]
    verbs: Sequence[str]


class SentenceReading(NamedTuple):
    """An answer parsed sentence by sentence."""

    spans: list[PlainSpan]
    """(start, end, quality) of every parsed sentence: text[start:end] is the sentence with its full stop."""
    unreadable: int
    """Number of sentences that are not from the task's vocabulary."""

    @property
    def quality(self) -> float:
        """The sum over sentences."""
        return float(sum(value for _, _, value in self.spans))


@dataclass(frozen=True)
class World:
    """The true quality of sentences: the ground truth behind the data of one seed."""

    settings: Planted
    seed: int

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The means that define a sentence's type; the same for every seed."""
        return MEANS[: self.settings.sentence_types]

    @cached_property
    def qualities(self) -> Int[np.ndarray, "types contexts"]:
        """-1, 0 or +1 of every type in every context."""
        rng = np.random.default_rng([self.seed, 0])
        count = len(self.types)
        good, bad = round(self.settings.good * count), round(self.settings.bad * count)
        values = rng.permutation(np.concatenate([np.ones(good), -np.ones(bad), np.zeros(count - good - bad)]).astype(np.int64))
        flips = rng.random(count) < self.settings.context_dependence
        return np.stack([values, np.where(flips, -values, values)], 1)

    @cached_property
    def training(self) -> WorldVocabulary:
        """The vocabulary of training pairs."""
        return WorldVocabulary(self._share(THINGS, 1)[0], self._share(VERBS, 5)[0])

    @cached_property
    def held_out(self) -> WorldVocabulary:
        """The vocabulary of held-out pairs."""
        return WorldVocabulary(self._share(THINGS, 1)[1], self._share(VERBS, 5)[1])

    def _share(self, known: Sequence[str], stream: int) -> tuple[list[str], list[str]]:
        order = np.random.default_rng([self.seed, stream]).permutation(len(known))
        held = max(1, round(self.settings.held_out_words * len(known)))
        return [known[place] for place in order[held:]], [known[place] for place in order[:held]]

    def prompt(self, rng: np.random.Generator, words: WorldVocabulary) -> str:
        """A question about one of the things."""
        return f"How do I look after a {rng.choice(MATERIALS)} {rng.choice(words.things)}?"

    def answer(self, rng: np.random.Generator, words: WorldVocabulary) -> str:
        """An answer drawn without preference; it starts with a space, so that prompt + answer is readable text."""
        count = self.settings.sentences
        return "".join(f" {verb} it with {means}." for verb, means in zip(rng.choice(words.verbs, count), rng.choice(self.types, count), strict=True))

    def read(self, prompt: str, answer: str) -> SentenceReading:
        """The true quality of every sentence of any answer, including a model's."""
        context = MATERIALS.index(_material(prompt)) % CONTEXTS
        spans: list[PlainSpan] = []
        unreadable = 0
        for piece in re.finditer(r"[^.\s][^.]*\.?", answer):
            found = SENTENCE.fullmatch(piece[0])
            if found is None or found[1] not in VERBS or found[2] not in self.types:
                unreadable += 1
            else:
                spans.append((piece.start(), piece.end(), float(self.qualities[self.types.index(found[2]), context])))
        return SentenceReading(spans, unreadable)

    def pair(self, rng: np.random.Generator, words: WorldVocabulary) -> Json:
        """prompt, chosen, rejected, and the truth as `chosen_truth` and `rejected_truth`, which no method reads."""
        prompt = self.prompt(rng, words)
        first = second = self.answer(rng, words)
        while second == first:
            second = self.answer(rng, words)
        difference = self.read(prompt, first).quality - self.read(prompt, second).quality
        chosen, rejected = (first, second) if rng.random() < preference_probability(difference, self.settings.temperature) else (second, first)
        truth = {f"{role}_truth": self.read(prompt, text).spans for role, text in (("chosen", chosen), ("rejected", rejected))}
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **truth}


def preference_probability(difference: float, temperature: float) -> float:
    """Bradley-Terry: sigmoid(difference / temperature); its limit at temperature 0."""
    if temperature == 0:
        return 0.5 if difference == 0 else float(difference > 0)
    return float(1 / (1 + np.exp(-np.clip(difference / temperature, -500, 500))))


def _material(prompt: str) -> str:
    found = PROMPT.fullmatch(prompt.strip())
    if found is None or found[1] not in MATERIALS or found[2] not in THINGS:
        raise UsageError(f"not a prompt of the planted task: {prompt!r}")
    return found[1]


def list_words() -> list[str]:
    """Every word of the task's language, without the spaces before them."""
    return sorted({*"How do I look after a it with".split(), *MATERIALS, *THINGS, *VERBS, *MEANS})


def make_pairs(world: World, count: int, *, stream: int, held_out: bool = False) -> list[Json]:
    """Labelled pairs; different streams are independent, a longer list of one stream starts with the shorter one."""
    return [world.pair(np.random.default_rng([world.seed, 2, stream, row]), world.held_out if held_out else world.training) for row in range(count)]


def make_demonstrations(world: World, count: int) -> list[Json]:
    """prompt and completion, drawn without preference, with all words: the pretraining data of a base model."""
    rng = np.random.default_rng([world.seed, 3])
    every = WorldVocabulary(THINGS, VERBS)
    return [{"prompt": world.prompt(rng, every), "completion": world.answer(rng, every)} for _ in range(count)]


def add_truth(rows: Iterable[Json]) -> list[Json]:
    """The same pairs with the truth as `chosen_spans` and `rejected_spans`: credit that is never available in practice."""
    return [{**row, "chosen_spans": row["chosen_truth"], "rejected_spans": row["rejected_truth"]} for row in rows]


def add_annotations(rows: Iterable[Json], settings: Planted, seed: int) -> list[Json]:
    """The same pairs with an annotator's marks: on some answers the sentences labelled bad, as spans of value -1."""
    rng = np.random.default_rng([seed, 4])

    def marks(truth: Sequence[PlainSpan]) -> list[PlainSpan] | None:
        annotated = rng.random() < settings.annotated
        wrong = rng.random(len(truth)) < settings.annotation_error
        return [(start, end, -1.0) for (start, end, value), flip in zip(truth, wrong, strict=True) if (value < 0) != flip] if annotated else None

    return [{**row, **{f"{role}_spans": marks(row[f"{role}_truth"]) for role in ("chosen", "rejected")}} for row in rows]


class Files(NamedTuple):
    """The data of one seed on disk, in the usual format of pairs."""

    pairs: Path
    everything: Path
    """The pairs and the pool."""
    pool: Path
    pool_a: Path
    """One half of the pool."""
    pool_b: Path
    truth: Path
    """The pairs with the truth as spans."""
    annotated: Path
    """The pairs with an annotator's spans on part of the answers."""
    held_out: Path


def write_planted(folder: Path, world: World) -> Files:
    """Writes all files of one seed."""
    settings = world.settings
    own, pool = make_pairs(world, settings.pairs, stream=0), make_pairs(world, settings.pool, stream=1)
    rows = {
        "pairs": own,
        "everything": own + pool,
        "pool": pool,
        "pool_a": pool[: len(pool) // 2],
        "pool_b": pool[len(pool) // 2 :],
        "truth": add_truth(own),
        "annotated": add_annotations(own, settings, world.seed),
        "held_out": make_pairs(world, settings.held_out_pairs, stream=2, held_out=True),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = find_planted_files(folder)
    for name, lines in rows.items():
        write_jsonl(getattr(files, name), lines)
    return files


def find_planted_files(folder: Path) -> Files:
    """The paths that `write_planted` writes to."""
    return Files(**{name: folder / f"{name}.jsonl" for name in Files._fields})


def read_jsonl(file: Path) -> list[Json]:
    """Reads a file written by `write_jsonl`."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_jsonl(file: Path, rows: Iterable[Json]) -> Path:
    """Writes one JSON object per line."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
