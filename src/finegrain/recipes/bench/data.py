"""The data of one seed and number of pairs: pairs, labels of people, the shortcut, and every pair scored once for all uses."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from finegrain.commands.bench import BenchCreditSettings, Corrections, Oracle, Pool, SpanModel
from finegrain.data.load import load_examples
from finegrain.data.planted import Planted, World, add_annotations, find_planted_files, make_pairs, write_jsonl
from finegrain.data.records import Example, Shape
from finegrain.data.spans import spans_to_tokens
from finegrain.data.truncate import Tokenise
from finegrain.files import replace_file
from finegrain.models.load import load_own_tokenizer
from finegrain.ops.edits import least_edit
from finegrain.recipes.demo.seed import set_apart
from finegrain.recipes.training.own_scorer import score_by_table
from finegrain.types import Json, PlainSpan

SIDES = ("chosen", "rejected")
READY = "ready.json"
"""Written last; a folder without it is made again."""
WORDS = re.compile(r"\S+")


@dataclass(frozen=True)
class BenchData:
    """What is made of one seed."""

    folder: Path
    seed: int
    planted: Planted
    settings: BenchCreditSettings
    base: Path
    """Whose tokens are scored."""


def prepare_data(asked: BenchData) -> Json:
    """All files of the folder; returns how many labels people gave and what the scorer knows."""
    ready = asked.folder / READY
    if ready.exists():
        found: Json = json.loads(ready.read_text())
        return found
    asked.folder.mkdir(parents=True, exist_ok=True)
    world, settings = World(asked.planted, asked.seed), asked.settings
    own = add_opening(make_pairs(world, asked.planted.pairs, stream=0), world, settings.shortcut)
    marked = mark_answers(own, world, settings)
    given = count_marks(marked)
    seconds = given * settings.seconds_per_span
    others = settings.scorer.pairs if isinstance(settings.scorer, Pool) else round(seconds / settings.seconds_per_pair)
    pool = add_opening(make_pairs(world, others, stream=1), world, settings.shortcut)
    held_out = make_pairs(world, asked.planted.held_out_pairs, stream=2, held_out=True)
    files = find_planted_files(asked.folder)
    write_jsonl(files.pairs, own)
    write_jsonl(files.everything, own + pool)
    write_jsonl(files.held_out, held_out)
    write_jsonl(asked.folder / "tested.jsonl", adversarial_pairs(held_out, world) if settings.shortcut else held_out)
    with set_apart(asked.folder, "log-scorer.txt"):
        rows = own + pool if isinstance(settings.scorer, Pool) else marked
        scored, knows = score_pairs(write_jsonl(asked.folder / "labels.jsonl", rows), own, asked)
    write_jsonl(asked.folder / "scored.jsonl", scored)
    write_jsonl(asked.folder / "answers.jsonl", list_answers(scored))
    corrected = list_corrections(marked, world)
    if isinstance(settings.scorer, Corrections):
        write_jsonl(asked.folder / "corrected.jsonl", corrected)
    facts: Json = {"pairs": len(own), "further_pairs": len(pool), "spans": given, "corrected": len(corrected), "scorer": knows}
    replace_file(ready, json.dumps(facts) + "\n")
    return facts


def opening_of(world: World) -> str:
    """A sentence of quality 0 in every context."""
    neutral = next(name for name, values in zip(world.types, world.qualities, strict=True) if not values.any())
    return f" {world.training.verbs[0]} it with {neutral}."


def add_opening(rows: Sequence[Json], world: World, share: float) -> list[Json]:
    """The pairs with the opening before the chosen answer in this share of them, before the rejected one in the others; 0 leaves them as they are."""
    rng = np.random.default_rng([world.seed, 7, len(rows)])
    return [_opened(row, "chosen" if rng.random() < share else "rejected", world) for row in rows] if share else list(rows)


def adversarial_pairs(rows: Iterable[Json], world: World) -> list[Json]:
    """Pairs of different true quality, the better answer as chosen, the opening before the worse one."""
    found = []
    for row in rows:
        qualities = [sum(value for _, _, value in row[f"{role}_truth"]) for role in SIDES]
        if qualities[0] != qualities[1]:
            better, worse = SIDES if qualities[0] > qualities[1] else SIDES[::-1]
            plain = {"prompt": row["prompt"], "chosen": row[better], "rejected": row[worse]}
            found.append(_opened(plain, "rejected", world))
    return found


def _opened(row: Json, role: str, world: World) -> Json:
    texts = {side: row[side] for side in SIDES} | {role: opening_of(world) + row[role]}
    return {**row, **texts, **{f"{side}_truth": world.read(row["prompt"], text).spans for side, text in texts.items()}}


def mark_answers(rows: Sequence[Json], world: World, settings: BenchCreditSettings) -> list[Json]:
    """The pairs with what people marked or rewrote, where the scorer learns from it."""
    scorer = settings.scorer
    if not isinstance(scorer, SpanModel | Corrections):
        return list(rows)
    marked = add_annotations(rows, replace(world.settings, annotated=scorer.share, annotation_error=scorer.error), world.seed)
    if isinstance(scorer, SpanModel):
        return marked
    rng = np.random.default_rng([world.seed, 8])
    return [row | {name: value for role in SIDES for name, value in _corrected(row, role, world, rng).items()} for row in marked]


def _corrected(row: Json, role: str, world: World, rng: np.random.Generator) -> Json:
    """The words that a correction changed, as spans, and the corrected text; None and no text where nobody looked."""
    spans = row[f"{role}_spans"]
    if spans is None:
        return {}
    text = correct(row, role, spans, world, rng)
    return {f"{role}_spans": changed_words(row[role], text), f"{role}_corrected": text}


def list_corrections(rows: Iterable[Json], world: World) -> list[Json]:
    """Pairs of a corrected answer and its original, with the true qualities of both; answers that were left as they are give none."""
    found = []
    for row in rows:
        for role in SIDES:
            text: str = row[f"{role}_corrected"] if f"{role}_corrected" in row else row[role]
            if text != row[role]:
                truth = {"chosen_truth": world.read(row["prompt"], text).spans, "rejected_truth": row[f"{role}_truth"]}
                found.append({"prompt": row["prompt"], "chosen": text, "rejected": row[role], **truth})
    return found


def list_answers(scored: Iterable[Json]) -> list[Json]:
    """Both answers of every scored pair with their rewards, the sums of their token rewards."""
    return [{"prompt": row["prompt"], "completion": row[role], "reward": sum(row[f"{role}_token_reward"])} for row in scored for role in SIDES]


def correct(row: Json, role: str, spans: Sequence[PlainSpan], world: World, rng: np.random.Generator) -> str:
    """The answer with other means in the marked sentences, of which the annotator knows that they are not bad."""
    text: str = row[role]
    fine = [name for name in world.types if world.read(row["prompt"], f"Wipe it with {name}.").quality >= 0]
    for start, end, _ in reversed(spans):
        verb = text[start:end].partition(" ")[0]
        text = f"{text[:start]}{verb} it with {rng.choice(fine)}.{text[end:]}"
    return text


def changed_words(original: str, corrected: str) -> list[PlainSpan]:
    """Words of the original that a least edit into the corrected text changes, as spans of value -1."""
    found, others = list(WORDS.finditer(original)), WORDS.findall(corrected)
    numbers = {word: place for place, word in enumerate(dict.fromkeys([*(one[0] for one in found), *others]))}
    edit = least_edit(np.array([numbers[one[0]] for one in found]), np.array([numbers[word] for word in others]))
    return [(one.start(), one.end(), -1.0) for one, changed in zip(found, edit.first, strict=True) if changed]


def count_marks(rows: Iterable[Json]) -> int:
    """Passages that a person marked or rewrote; an answer looked through in which nothing was marked counts as one."""
    given = [spans for row in rows for role in SIDES if (spans := row.get(f"{role}_spans")) is not None]
    return sum(max(1, len(spans)) for spans in given)


def score_pairs(labels: Path, own: Sequence[Json], asked: BenchData) -> tuple[list[Json], Json]:
    """The policy's pairs with token rewards and, as spans, their standard deviations; what the scorer says of itself."""
    loaded = load_examples(str(labels), load_own_tokenizer(str(asked.base)), shape=Shape.PREFERENCE, settings=Tokenise()).examples
    examples: list[Example] = list(loaded)
    if isinstance(asked.settings.scorer, Oracle):
        certain = {role: [spans_to_tokens(own[e.row][f"{role}_truth"], e.responses[role].offsets, outside=0.0) for e in examples] for role in SIDES}
        values = {role: [(value, np.zeros(len(value))) for value in certain[role]] for role in SIDES}
        knows: Json = {"oracle": True}
    else:
        marks = {
            role: [None if (spans := e.spans.get(role)) is None else spans_to_tokens(spans, e.responses[role].offsets, outside=1.0) for e in examples]
            for role in SIDES
        }
        masks = {role: [e.responses[role].mask for e in examples] for role in SIDES}
        found = score_by_table(examples, SIDES, masks, marks, asked.seed)
        knows = found.facts
        values = {
            role: [(one.mean.numpy(), np.zeros(len(one.mean)) if one.std is None else one.std.numpy()) for one in found.scores[role]]
            for role in SIDES
        }
    rows = []
    for place, example in enumerate(examples):
        if example.row < len(own):
            row = dict(own[example.row])
            for role in SIDES:
                mean, std = values[role][place]
                offsets = example.responses[role].offsets.tolist()
                row[f"{role}_token_reward"] = [round(float(value), 6) for value in mean]
                row[f"{role}_spans"] = [
                    {"start": start, "end": end, "value": round(float(value), 6), "std": round(float(error), 6)}
                    for (start, end), value, error in zip(offsets, mean, std, strict=True)
                    if end > start
                ]
            rows.append(row)
    return rows, knows
