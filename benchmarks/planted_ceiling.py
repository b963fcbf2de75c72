"""What the labels of the demo's world can tell at most: the exact posterior of the sentences' qualities, and an exact tilt of the base by it.

    python benchmarks/planted_ceiling.py

A Gibbs sampler knows everything about how the labels came about (shares of good and bad types, temperature, the annotator's errors) but the types'
qualities; no method that only learns from the labels can expect more. The policy is the base's distribution over types times exp(c * score),
with c such that an answer is 1 or 4 nats from the base; nothing is trained, so no optimiser and no network limits it. The table of the run's own
scorer, made of the same rows, stands beside it. Five minutes on one core.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from command import flags, write
from places import RESULTS
from scipy.optimize import brentq
from scipy.special import log_expit, softmax
from tables import markdown, summary

from finegrain.data.load import load_examples
from finegrain.data.planted import SENTENCE, World, add_annotations, make_pairs, write_jsonl
from finegrain.data.records import Shape
from finegrain.data.truncate import Tokenise
from finegrain.recipes.demo.base import word_tokenizer
from finegrain.recipes.demo.run import FULL
from finegrain.recipes.training.own_scorer import PAIR, find_types, read_span_values, score_by_table
from finegrain.types import Json

FIRST = 210
SWEEPS, BURN = 500, 100
WITHIN = (1.0, 4.0)
QUALITIES = np.array([-1.0, 0.0, 1.0])


def sentence_types(world: World, row: Json, role: str) -> list[int]:
    """Types of an answer's sentences, in the order of its truth."""
    found = [SENTENCE.fullmatch(row[role][start:end]) for start, end, _ in row[f"{role}_truth"]]
    return [world.types.index(match[2]) for match in found if match]


def posterior_mean(world: World, rows: Sequence[Json], seed: int) -> np.ndarray:
    """Of every type's quality, by Gibbs sampling."""
    settings, count = world.settings, len(world.types)
    prior = np.log([settings.bad, 1 - settings.bad - settings.good, settings.good])
    marks = np.tile(prior, (count, 1))
    design = np.zeros((len(rows), count))
    right, wrong = np.log(1 - settings.annotation_error), np.log(settings.annotation_error)
    for place, row in enumerate(rows):
        for role, sign in zip(PAIR, (1.0, -1.0), strict=True):
            types = sentence_types(world, row, role)
            np.add.at(design[place], types, sign)
            marked = row.get(f"{role}_spans")
            if marked is not None:
                starts = {start for start, _, _ in marked}
                for kind, (start, _, _) in zip(types, row[f"{role}_truth"], strict=True):
                    marks[kind] += np.where((QUALITIES < 0) == (start in starts), right, wrong)
    rng = np.random.default_rng(seed)
    quality, total, margins = np.zeros(count), np.zeros(count), np.zeros(len(rows))
    for sweep in range(SWEEPS):
        for kind in rng.permutation(count):
            own = np.flatnonzero(design[:, kind])
            rest = margins[own] - design[own, kind] * quality[kind]
            logits = (rest[:, None] + design[own, kind][:, None] * QUALITIES) / settings.temperature
            drawn = rng.choice(QUALITIES, p=softmax(marks[kind] + log_expit(logits).sum(0)))
            margins[own] = rest + design[own, kind] * drawn
            quality[kind] = drawn
        if sweep >= BURN:
            total += quality
    return total / (SWEEPS - BURN)


def tilted_quality(scores: np.ndarray, truth: np.ndarray, sentences: int, nats: float) -> float:
    """True quality of an answer whose sentences are drawn with probability proportional to exp(c * score), `nats` from the base."""

    def excess(strength: float) -> float:
        chances = softmax(strength * scores)
        return float(sentences * (chances * np.log(np.maximum(chances * len(chances), 1e-300))).sum() - nats)

    most = 500 / max(np.ptp(scores), 1e-9)
    strength = brentq(excess, 0.0, most) if excess(most) > 0 else most
    return float(sentences * softmax(strength * scores) @ truth)


def table_scores(world: World, rows: Sequence[Json], seed: int) -> np.ndarray:
    """Of every type's word: the mean over the answers of what the run's own, cross-fitted scorer gives it."""
    with TemporaryDirectory() as folder:
        file = write_jsonl(Path(folder) / "rows.jsonl", rows)
        examples = load_examples(str(file), word_tokenizer(), shape=Shape.PREFERENCE, settings=Tokenise()).examples
    masks = {role: [example.responses[role].mask for example in examples] for role in PAIR}
    marks = {role: [None if own is None else own.value for own in found] for role, found in read_span_values(examples, PAIR).items()}
    scored = score_by_table(examples, PAIR, masks, marks, seed).scores
    found: dict[str, list[float]] = {}
    for role in PAIR:
        for example, own in zip(examples, scored[role], strict=True):
            for kind, value in zip(find_types(example.responses[role]), own.mean.tolist(), strict=True):
                found.setdefault(kind.word, []).append(value)
    return np.array([np.mean(found.get(word, [0.0])) for word in world.types])


def main() -> None:
    parser = flags(__doc__, seeds=10, out=RESULTS)
    options = parser.parse_args()
    planted = FULL.planted
    cells: dict[str, dict[str, list[float]]] = {}
    for seed in range(FIRST, FIRST + options.seeds):
        world = World(planted, seed)
        rows = add_annotations(make_pairs(world, planted.pairs, stream=0), planted, seed)
        truth = world.qualities[:, 0].astype(float)
        plain = [{name: value for name, value in row.items() if not name.endswith("_spans")} for row in rows]
        scores = {"the truth": truth}
        for name, own in (("pairs", plain), ("pairs and spans", rows)):
            scores[f"exact posterior, {name}"] = posterior_mean(world, own, seed)
            scores[f"table of words, {name}"] = table_scores(world, own, seed)
        for name, own in scores.items():
            for nats in WITHIN:
                value = tilted_quality(own, truth, planted.sentences, nats)
                cells.setdefault(name, {}).setdefault(f"quality at {nats:g} nats", []).append(value)
            cells[name].setdefault("correlation with the truth", []).append(float(np.corrcoef(own, truth)[0, 1]))
    table = summary(cells)
    how = " ".join(__doc__.split("\n\n")[-1].split()).removesuffix(" Five minutes on one core.")
    about = (
        f"Made by `benchmarks/planted_ceiling.py`: {planted.pairs} pairs of the demo's world, spans on {planted.annotated:.0%} of the answers with "
        f"an annotator who errs in {planted.annotation_error:.0%} of the sentences; seeds {FIRST} to {FIRST + options.seeds - 1}, means ± half of "
        f"a 95 % interval. {how}"
    )
    page = "\n".join(["# What the labels of the demo's world can tell at most", "", about, "", markdown(table, "scores"), ""])
    write(options.out, "planted-ceiling", {"table": table, "cells": cells}, page)
    print(page)


if __name__ == "__main__":
    main()
