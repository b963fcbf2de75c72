"""How well scorers that nobody trained find what people marked: error spans of three sets, and first wrong steps of chains of thought.

    python benchmarks/human_track.py --data ../shared/data [--model build/example/model]

Units are words: of QA feedback's first answers (people's error spans; the other three predictions of the question are the other answers), of
haluquestqa's answers (experts' spans; the other answer of the pair) and of WMT's English-German translations (three raters; other systems'
translations; a word is marked if at least half of the raters marked it). A score says how suspect a word is: its place, minus its overlap with
prompt and passage, minus its agreement with the other answers, or all three; with --model also minus its log-probability given the prompt
(question, passages, source), and how much less probable the prompt makes it than an empty one. AUROC pooled over all words, and as the mean
within answers that have words of both kinds; percentile bootstraps over answers. For chains of thought with a wrong step: how often a rule names
the first one (Wilson). Nothing is fitted.
"""

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from command import flags, write
from places import DATA, RESULTS
from tables import ranged

from finegrain.credit.text_signals import WORD, Lexical
from finegrain.data.load import load_examples
from finegrain.data.planted import write_jsonl
from finegrain.data.records import Shape
from finegrain.data.tokenise import Tokenise
from finegrain.evaluate.discrimination import auroc
from finegrain.models.load import load_policy
from finegrain.models.probe import make_scorer
from finegrain.models.score import Precision, score_rows
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval

FLOORS = {
    "place": Lexical(overlap=0.0, agreement=0.0),
    "overlap": Lexical(agreement=0.0, place=0.0),
    "agreement": Lexical(overlap=0.0, place=0.0),
    "lexical (all three)": Lexical(),
}
QA = {
    "factual": frozenset({"Wrong-Grounding", "Unverifiable"}),
    "irrelevant": frozenset({"Irrelevant", "Redundant"}),
    "incoherent": frozenset({"Incoherent"}),
}
LONGEST = 1024
"""Tokens of a prompt with its answer, for a model; of longer prompts the end is read."""
FEWEST = 30
"""Answers with words of both kinds, below which an aspect is left out."""


@dataclass(frozen=True)
class Marked:
    """One answer that people marked."""

    prompt: str
    text: str
    others: Sequence[str]
    """Other answers to the prompt."""
    raters: Sequence[Sequence[tuple[int, int, str]]]
    """(start, end, aspect) of every rater's marks."""

    def labels(self, aspect: str) -> tuple[np.ndarray, np.ndarray]:
        """Whether half of the raters marked each word with the aspect ("any": with one), and whether it counts: not if marked otherwise."""
        words = list(WORD.finditer(self.text))
        found = [[{name for start, end, name in marks if start < word.end() and word.start() < end} for marks in self.raters] for word in words]
        named = np.array([np.mean([aspect in names or (aspect == "any" and bool(names)) for names in own]) >= 0.5 for own in found])
        other = np.array([any(own) for own in found])
        return named, named | ~other


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a packed file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def qa_feedback(folder: Path) -> list[Marked]:
    """First answers."""
    aspects = {name: aspect for aspect, names in QA.items() for name in names}
    found = []
    for row in read(folder / "qa_feedback.jsonl.gz"):
        passages = "\n\n".join("\n".join(passage) for passage in row["passages"])
        marks = [(one["start"], one["end"], aspects.get(one["error type"], "other")) for one in row["feedback"]["errors"]]
        answers = [row[f"prediction {number}"] for number in range(1, 5)]
        found.append(Marked(f"{passages}\n\nQuestion: {row['question']}\nAnswer: ", answers[0], answers[1:], [marks]))
    return found


def haluquestqa(folder: Path) -> list[Marked]:
    """Both answers of every pair."""
    found = []
    for row in read(folder / "haluquestqa.jsonl.gz"):
        for own, other in (("chosen", "rejected"), ("rejected", "chosen")):
            if row[f"{own}_spans"] is not None:
                marks = [(span["start"], span["end"], span["aspect"]) for span in row[f"{own}_spans"]]
                found.append(Marked(f"Question: {row['prompt']}\nAnswer: ", row[own], [row[other]], [marks]))
    return found


def mqm(folder: Path) -> list[Marked]:
    """Translations."""
    rows = list(read(folder / "mqm_ende.jsonl.gz"))
    by_source = defaultdict(list)
    for row in rows:
        by_source[row["prompt"]].append(row)
    found = []
    for row in rows:
        raters = [[(span["start"], span["end"], span["aspect"].split("/")[0]) for span in spans] for spans in row["spans_by_rater"].values()]
        others = [other["response"] for other in by_source[row["prompt"]] if other is not row]
        found.append(Marked(f"English: {row['prompt']}\nGerman: ", row["response"], others, raters))
    return found


SETS: Mapping[str, Callable[[Path], list[Marked]]] = {"qa_feedback": qa_feedback, "haluquestqa": haluquestqa, "mqm_ende": mqm}


def words_of(text: str) -> set[str]:
    """Its words."""
    return {word.casefold() for word in WORD.findall(text)}


def lexical(answers: Sequence[Marked], signal: Lexical) -> list[np.ndarray]:
    """Suspicion of every word."""
    return [
        np.array([-span.value for span in signal._spans(one.text, words_of(one.prompt), [words_of(text) for text in (one.text, *one.others)])])
        for one in answers
    ]


def surprisals(answers: Sequence[Marked], checkpoint: str, *, prompted: bool) -> list[np.ndarray]:
    """Minus the log-probability of every word under a language model, the sum over its tokens; NaN for words that were cut."""
    policy = load_policy(checkpoint)
    with TemporaryDirectory() as folder:
        rows = [{"prompt": one.prompt if prompted else one.prompt.rpartition("\n")[2], "response": one.text} for one in answers]
        file = write_jsonl(Path(folder) / "rows.jsonl", rows)
        settings = Tokenise(max_length=LONGEST)
        examples = load_examples(str(file), policy.tokenizer, shape=Shape.DEMONSTRATION, settings=settings).examples
        scorer, _ = make_scorer(policy.model, longest=LONGEST)
        precision = Precision(lambda: torch.autocast("cpu", torch.bfloat16), "bfloat16", 4096)
        logps = score_rows(scorer, examples, ("answer",), precision)["answer"]
        found = [np.full(len(WORD.findall(one.text)), np.nan) for one in answers]
        for example, values in zip(examples, logps, strict=True):
            response = example.responses["answer"]
            shift = response.text.find(answers[example.row].text)
            for place, word in enumerate(WORD.finditer(answers[example.row].text)):
                inside = (response.offsets[:, 0] < word.end() + shift) & (word.start() + shift < response.offsets[:, 1])
                if inside.any():
                    found[example.row][place] = -float(values[inside].sum())
    return found


def measure(answers: Sequence[Marked], scores: Sequence[np.ndarray], aspect: str) -> tuple[Interval, Interval, int] | None:
    """AUROC pooled and within answers, and the number of answers of both kinds."""
    scored = []
    for one, values in zip(answers, scores, strict=True):
        marked, counts = one.labels(aspect)
        kept = counts & np.isfinite(values)
        scored.append((values[kept], marked[kept]))
    both = [one for one in scored if 0 < one[1].sum() < len(one[1])]
    if len(both) < FEWEST:
        return None
    within = np.array([auroc(values, marked).mean for values, marked in both])
    pooled = lambda draw: auroc(np.concatenate([scored[i][0] for i in draw]), np.concatenate([scored[i][1] for i in draw])).mean
    every = Bootstrap(resamples=200)(pooled, np.zeros(len(scored), dtype=int))
    inner = Bootstrap(resamples=2000)(lambda draw: float(within[draw].mean()), np.zeros(len(within), dtype=int))
    return every, inner, len(both)


def first_wrong_steps(folder: Path) -> list[str]:
    """Lines of the table of rules for chains of thought."""
    rows = [row for row in read(folder / "first_errors.jsonl.gz") if row["first_error"] is not None]
    rules: Mapping[str, Callable[[Sequence[str]], int]] = {
        "last step": lambda steps: len(steps) - 1,
        "longest step": lambda steps: int(np.argmax([len(step) for step in steps])),
        "first step": lambda steps: 0,
        "second step": lambda steps: min(1, len(steps) - 1),
    }
    lines = [f"| rule | names the first wrong step ({len(rows)} chains) |", "| --- | --- |"]
    for name, rule in rules.items():
        lines.append(f"| {name} | {ranged(wilson(np.array([float(rule(row['completions']) == row['first_error']) for row in rows])))} |")
    lines.append(f"| a step at random | {np.mean([1 / len(row['completions']) for row in rows]):.3f} |")
    return lines


def main() -> None:
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model", help="a language model's folder; without it, words alone")
    options = parser.parse_args()
    lines = ["| set | aspect | score | pooled | within answers | answers with both |", "| --- " * 6 + "|"]
    for name, load in SETS.items():
        answers = load(options.data)
        scores = {signal: lexical(answers, setting) for signal, setting in FLOORS.items()}
        if options.model:
            given, alone = (surprisals(answers, options.model, prompted=prompted) for prompted in (True, False))
            scores["surprisal"] = given
            scores["surprisal, more than without prompt"] = [one - other for one, other in zip(given, alone, strict=True)]
        aspects = sorted({aspect for one in answers for marks in one.raters for _, _, aspect in marks} - {"other"})
        for aspect in ("any", *aspects):
            for signal, values in scores.items():
                found = measure(answers, values, aspect)
                if found is not None:
                    lines.append(f"| {name} | {aspect} | {signal} | {ranged(found[0])} | {ranged(found[1])} | {found[2]} of {len(answers)} |")
                    print(lines[-1], flush=True)
    lines += ["", *first_wrong_steps(options.data)]
    model = f" Language model: {Path(options.model).name}." if options.model else " No language model was given: words alone."
    about = f"Made by `benchmarks/human_track.py`. {' '.join(__doc__.split(chr(10) * 2)[-1].split())}{model}"
    write(
        options.out, "human-track", {"lines": lines}, "\n".join(["# Scorers that nobody trained against people's marks", "", about, "", *lines, ""])
    )


if __name__ == "__main__":
    main()
