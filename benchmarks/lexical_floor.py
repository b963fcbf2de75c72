"""How well words alone find people's marks: token AUROC of the lexical signal and its parts on QA feedback (error spans of answer 1).

    python benchmarks/lexical_floor.py qa_feedback.jsonl.gz

Units are words; higher scores should be right words, so the AUROC is that of minus the score for marked words. `within` is the mean over answers
that have words of both kinds. Intervals are percentile bootstraps over answers (200 resamples pooled, 2,000 within). Nothing is fitted.
"""

import gzip
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from finegrain.credit.text_signals import WORD, Lexical
from finegrain.evaluate.discrimination import auroc
from finegrain.ops.bootstrap import Bootstrap

SIGNALS = {
    "place": Lexical(overlap=0.0, agreement=0.0),
    "overlap": Lexical(agreement=0.0, place=0.0),
    "agreement": Lexical(overlap=0.0, place=0.0),
    "overlap and agreement": Lexical(place=0.0),
    "lexical (all three)": Lexical(),
}
KINDS: Mapping[str, frozenset[str]] = {
    "any": frozenset({"Irrelevant", "Redundant", "Wrong-Grounding", "Unverifiable", "Incoherent"}),
    "irrelevant": frozenset({"Irrelevant", "Redundant"}),
    "factual": frozenset({"Wrong-Grounding", "Unverifiable"}),
}


def words_of(text: str) -> set[str]:
    """Its words."""
    return {word.casefold() for word in WORD.findall(text)}


def score(row: Mapping[str, Any], signal: Lexical, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(suspicion, marked) of the words of answer 1; words of other kinds of errors are left out."""
    answers = [words_of(row[f"prediction {number}"]) for number in range(1, 5)]
    prompt = words_of(" ".join([row["question"], *(" ".join(passage) for passage in row["passages"])]))
    text, values, marks, kept = row["prediction 1"], [], [], []
    for match, (_, _, value) in zip(WORD.finditer(text), signal._spans(text, prompt, answers), strict=True):
        found = {error["error type"] for error in row["feedback"]["errors"] if error["start"] < match.end() and match.start() < error["end"]}
        values.append(-value)
        marks.append(bool(found & KINDS[kind]))
        kept.append(not found or bool(found & KINDS[kind]))
    return np.array(values)[kept], np.array(marks, dtype=bool)[kept]


def main() -> None:
    """Print the table."""
    rows = [json.loads(line) for line in gzip.open(sys.argv[1], "rt")]
    print("| words | errors | pooled | within answers | answers |\n| --- | --- | --- | --- | --- |")
    for kind in KINDS:
        for name, signal in SIGNALS.items():
            scored = [score(row, signal, kind) for row in rows]
            both = [one for one in scored if 0 < one[1].sum() < len(one[1])]
            within = np.array([auroc(values, marked).mean for values, marked in both])
            pooled = lambda draw, own=scored: auroc(np.concatenate([own[i][0] for i in draw]), np.concatenate([own[i][1] for i in draw])).mean
            every = Bootstrap(resamples=200)(pooled, np.zeros(len(scored), dtype=int))
            inner = Bootstrap(resamples=2000)(lambda draw, own=within: float(own[draw].mean()), np.zeros(len(within), dtype=int))
            shown = [f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in (every, inner)]
            print(f"| {name} | {kind} | {shown[0]} | {shown[1]} | {len(rows)}, {len(both)} |", flush=True)


if __name__ == "__main__":
    main()
